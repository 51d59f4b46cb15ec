//! A matrix of any bytes, as a damaged packed file has them, multiplied by every kernel that this CPU has. What names and sizes
//! such a file, its header, is the target `safetensors`.
#![no_main]

use outpost_kernels::{AlignedBytes, Epilogue, Format, Input, Isa, Kernels, Matrix};

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let [format, rows, groups, bytes @ ..] = input else { return };
    let formats = [Format::Q4, Format::Q8, Format::Bf16, Format::F32];
    let format = formats[usize::from(*format) % formats.len()];
    let (rows, width) = (usize::from(*rows) + 1, 32 * (usize::from(*groups) % 8 + 1));
    let new = |bytes: &[u8]| Matrix::new(format, rows, width, AlignedBytes::copy_of(bytes).into());
    let size = format.bytes(rows, width).expect("a size that can be counted");
    assert_eq!(new(bytes).is_ok(), bytes.len() == size);
    let whole: Vec<u8> = bytes.iter().chain(&[0x3c]).copied().cycle().take(size).collect();
    let matrix = new(&whole).expect("as many bytes as there should be");
    for isa in Isa::available() {
        let kernels = Kernels::new(isa, 1);
        for positions in [1, 4, 13] {
            let mut input = Input::default();
            input.begin(positions, width).fill(0.5);
            let mut out = vec![0.0; positions * rows];
            kernels.product(&matrix, &mut input, &mut out, Epilogue::Store);
        }
    }
});
