//! The wheels that libtorch is taken from, pinned.

/// The version of libtorch that `tch` expects.
pub(crate) const TORCH_VERSION: &str = "2.13.0";

/// With or without CUDA.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flavour {
    /// Runs on the CPU only; 430 MB.
    Cpu,
    /// Runs on an NVIDIA GPU too; 3.6 GB.
    Cuda,
}

impl Flavour {
    /// What libtorch calls this build of itself, as in its file `build-version`.
    pub(crate) fn build_version(self) -> String {
        let build = match self {
            Self::Cpu => "cpu",
            Self::Cuda => "cu130",
        };
        format!("{TORCH_VERSION}+{build}")
    }

    /// The name that `unpack.py` knows it by.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cuda => "cuda",
        }
    }

    const fn wheels(self) -> &'static [Wheel] {
        match self {
            Self::Cpu => WHEELS.split_at(LINKED).0,
            Self::Cuda => &WHEELS,
        }
    }
}

/// Requirements for pip, with hashes, of all wheels of a flavour on a processor; `None` where there are none for it.
pub(crate) fn requirements(flavour: Flavour, processor: &str) -> Option<String> {
    let line = |wheel: &Wheel| {
        let sha256 = match processor {
            "x86_64" => wheel.x86_64,
            "aarch64" => wheel.aarch64,
            _ => return None,
        };
        Some(format!("{}=={} --hash=sha256:{sha256}\n", wheel.name, wheel.version))
    };
    flavour.wheels().iter().map(line).collect()
}

struct Wheel {
    name: &'static str,
    version: &'static str,
    /// SHA-256 of the wheel for Linux on this processor.
    x86_64: &'static str,
    aarch64: &'static str,
}

/// So many wheels at the head of the table hold what `libtorch_cpu.so` itself links.
const LINKED: usize = 3;

/// The versions are those that torch's own metadata asks for.
const WHEELS: [Wheel; 16] = [
    Wheel {
        name: "torch",
        version: "2.13.0",
        x86_64: "60fcdcb2f3876e21146cb4524ef06397d727ca9ad5f020818547e25075fe3cb7",
        aarch64: "092790c696a760c729fd5722835f50b9d81fd7c8f141571f3f3cf4081a8f664c",
    },
    Wheel {
        name: "nvidia-cuda-runtime",
        version: "13.0.96",
        x86_64: "7f82250d7782aa23b6cfe765ecc7db554bd3c2870c43f3d1821f1d18aebf0548",
        aarch64: "ef9bcbe90493a2b9d810e43d249adb3d02e98dd30200d86607d8d02687c43f55",
    },
    Wheel {
        name: "nvidia-cuda-cupti",
        version: "13.0.85",
        x86_64: "4eb01c08e859bf924d222250d2e8f8b8ff6d3db4721288cf35d14252a4d933c8",
        aarch64: "796bd679890ee55fb14a94629b698b6db54bcfd833d391d5e94017dd9d7d3151",
    },
    Wheel {
        name: "nvidia-cublas",
        version: "13.1.1.3",
        x86_64: "37936a16db8fe4ac1f065c2139360608a543a09275cb1a1af612e08cfa065436",
        aarch64: "b7a210458267ac818974c53038fbec2e969d5c99f305ab15c72522fa9f001dd5",
    },
    Wheel {
        name: "nvidia-cuda-nvrtc",
        version: "13.0.88",
        x86_64: "ad9b6d2ead2435f11cbb6868809d2adeeee302e9bb94bcf0539c7a40d80e8575",
        aarch64: "d27f20a0ca67a4bb34268a5e951033496c5b74870b868bacd046b1b8e0c3267b",
    },
    Wheel {
        name: "nvidia-cudnn-cu13",
        version: "9.20.0.48",
        x86_64: "0c45dd8eeb50b603f07995b1b300c62ffe6a1980482b82b3bcf94a4ca9d49304",
        aarch64: "e31454ae00094b0c55319d9d15b6fa2fc50a9e1c0f5c8c80fb75258234e731e1",
    },
    Wheel {
        name: "nvidia-cufft",
        version: "12.0.0.61",
        x86_64: "6c44f692dce8fd5ffd3e3df134b6cdb9c2f72d99cf40b62c32dde45eea9ddad3",
        aarch64: "2708c852ef8cd89d1d2068bdbece0aa188813a0c934db3779b9b1faa8442e5f5",
    },
    Wheel {
        name: "nvidia-cufile",
        version: "1.15.1.6",
        x86_64: "08a3ecefae5a01c7f5117351c64f17c7c62efa5fffdbe24fc7d298da19cd0b44",
        aarch64: "bdc0deedc61f548bddf7733bdc216456c2fdb101d020e1ab4b88d232d5e2f6d1",
    },
    Wheel {
        name: "nvidia-curand",
        version: "10.4.0.35",
        x86_64: "1aee33a5da6e1db083fe2b90082def8915f30f3248d5896bcec36a579d941bfc",
        aarch64: "133df5a7509c3e292aaa2b477afd0194f06ce4ea24d714d616ff36439cee349a",
    },
    Wheel {
        name: "nvidia-cusolver",
        version: "12.0.4.66",
        x86_64: "0a759da5dea5c0ea10fd307de75cdeb59e7ea4fcb8add0924859b944babf1112",
        aarch64: "02c2457eaa9e39de20f880f4bd8820e6a1cfb9f9a34f820eb12a155aa5bc92d2",
    },
    Wheel {
        name: "nvidia-cusparse",
        version: "12.6.3.3",
        x86_64: "2b3c89c88d01ee0e477cb7f82ef60a11a4bcd57b6b87c33f789350b59759360b",
        aarch64: "80bcc4662f23f1054ee334a15c72b8940402975e0eab63178fc7e670aa59472c",
    },
    Wheel {
        name: "nvidia-cusparselt-cu13",
        version: "0.8.1",
        x86_64: "786ce87568c303fadb5afcc7102d454cd3040d75f6f8626f5db460d1871f4dd0",
        aarch64: "4dca476c50bf4780d46cd0bfbd82e2bc10a08e4fef7950917ce8d7578d22a23f",
    },
    Wheel {
        name: "nvidia-nccl-cu13",
        version: "2.29.7",
        x86_64: "edd81538446786ec3b73972543e53bb43bcaf0bfc8ef76cb679fcc390ffe136d",
        aarch64: "674a12383e3c38a1bcccae7d4f3633b37852230b6047883cb2f4c2d1b36d9bf5",
    },
    Wheel {
        name: "nvidia-nvjitlink",
        version: "13.0.88",
        x86_64: "13a74f429e23b921c1109976abefacc69835f2f433ebd323d3946e11d804e47b",
        aarch64: "e931536ccc7d467a98ba1d8b89ff7fa7f1fa3b13f2b0069118cd7f47bff07d0c",
    },
    Wheel {
        name: "nvidia-nvshmem-cu13",
        version: "3.4.5",
        x86_64: "290f0a2ee94c9f3687a02502f3b9299a9f9fe826e6d0287ee18482e78d495b80",
        aarch64: "6dc2a197f38e5d0376ad52cd1a2a3617d3cdc150fd5966f4aee9bcebb1d68fe9",
    },
    Wheel {
        name: "nvidia-nvtx",
        version: "13.0.85",
        x86_64: "4936d1d6780fbe68db454f5e72a42ff64d1fd6397df9f363ae786930fd5c1cd4",
        aarch64: "cb7780edb6b14107373c835bf8b72e7a178bac7367e23da7acb108f973f157a6",
    },
];
