//! Every reader of files that a user fetched, each used as an import or a load uses it: for the fuzz targets of `runtime/fuzz`.
//!
//! A file that is read to its end may be good or bad, but no file may lead to a panic or to memory that it does not have the
//! bytes for.

use std::path::Path;

use crate::config::Config;
use crate::error::{Error, Result};
use crate::import::checkpoint::Checkpoint;
use crate::import::gguf::Gguf;
use crate::import::manifest::Manifest;
use crate::import::source::TensorSource;
use crate::import::{ImportOptions, config as config_in, published};
use crate::media::{Channel, read_audio, read_image};
use crate::plan::Plan;
use crate::tokenizer::Tokenizer;
use crate::vision::Layout;

/// A reader, given the path of a file.
pub type Reader = fn(&Path) -> Result<()>;

/// The readers by the name of the file that each one reads.
pub const READERS: [(&str, Reader); 5] = [
    ("model.safetensors", safetensors),
    ("model.gguf", gguf),
    ("config.json", config),
    ("manifest.json", manifest),
    ("tokenizer.json", tokenizer),
];

/// The same for what people record and photograph. A sound or picture that is cut short may be good: streams have no end.
pub const MEDIA: [(&str, Reader); 2] = [("sound", sound), ("picture", picture)];

/// A sound of any format.
///
/// # Errors
/// What is wrong with the file.
pub fn sound(path: &Path) -> Result<()> {
    read_audio(path, Channel::Auto).map(|_| ())
}

/// A picture of any format.
///
/// # Errors
/// What is wrong with the file.
pub fn picture(path: &Path) -> Result<()> {
    read_image(path).map(|_| ())
}

/// A checkpoint's tensors, each in f32.
///
/// # Errors
/// The first of what is wrong with the file.
pub fn safetensors(path: &Path) -> Result<()> {
    let file = Checkpoint::of_file(path, str::to_owned)?;
    every_tensor(&file)
}

/// A GGUF file's tensors, config and tokenizer.
///
/// # Errors
/// The first of what is wrong with the file.
pub fn gguf(path: &Path) -> Result<()> {
    let file = Gguf::open(path)?;
    let _ = (file.licence(), file.generation_config(), file.factors());
    let (config, tokenizer) = (file.config(), file.tokenizer());
    every_tensor(&file)?;
    sizes(&Config::parse(&config?, path)?);
    Tokenizer::parse(&tokenizer?).map_err(|reason| Error::config(path, reason))?;
    Ok(())
}

/// A model's config and what follows from it.
///
/// # Errors
/// What is wrong with the file.
pub fn config(path: &Path) -> Result<()> {
    sizes(&config_in(path.parent().unwrap_or(path))?);
    Ok(())
}

/// A packed model's manifest, and the parts that it names.
///
/// # Errors
/// What is wrong with the file, or with a part.
pub fn manifest(path: &Path) -> Result<()> {
    let dir = path.parent().unwrap_or(path);
    Manifest::read(dir)?.verify(dir)
}

/// A tokenizer, and the grammar engine's view of it.
///
/// # Errors
/// What is wrong with the file.
pub fn tokenizer(path: &Path) -> Result<()> {
    let tokenizer = Tokenizer::read(path)?;
    tokenizer.encode("Hello, <|end|> wörld 123\n").map(|_| ())
}

fn every_tensor(source: &dyn TensorSource) -> Result<()> {
    let read = |name: &str| source.f32(name, source.shape(name).unwrap_or_default()).map(|_| ());
    // All of them, whatever is wrong with one.
    let results: Vec<_> = source.names().into_iter().map(read).collect();
    results.into_iter().collect()
}

fn sizes(config: &Config) {
    let _ = published(config);
    let _ = Plan::of(config, ImportOptions::default());
    if let Some(image) = config.image() {
        let _ = Layout::of(640, 480, image);
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use proptest::prelude::*;
    use proptest::sample::Index;

    use super::*;

    /// The seeds of the reader of such a file: `good-…`, which it takes, and `bad-…`, which it does not.
    fn seeds(file: &str) -> Vec<(String, Vec<u8>)> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(file);
        let mut paths: Vec<PathBuf> =
            std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort_unstable();
        let name = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
        paths.iter().map(|path| (name(path), std::fs::read(path).unwrap())).collect()
    }

    fn read(file: &str, reader: Reader, bytes: &[u8]) -> Result<()> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(file);
        std::fs::write(&path, bytes).unwrap();
        reader(&path)
    }

    #[test]
    fn seeds_are_good_or_bad_as_they_say() {
        for (file, reader) in READERS.into_iter().chain(MEDIA) {
            let seeds = seeds(file);
            let good = seeds.iter().filter(|(name, _)| name.starts_with("good-")).count();
            assert!(good > 0 && good < seeds.len(), "{file}");
            for (name, bytes) in seeds {
                let result = read(file, reader, &bytes);
                assert_eq!(result.is_ok(), name.starts_with("good-"), "{name}: {result:?}");
            }
        }
    }

    /// The test above once more, in a process that has little more address space than this one takes already.
    #[test]
    fn no_seed_asks_for_memory_that_it_does_not_fill() {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmPeak:")).unwrap();
        let kilobytes: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
        let test = "readers::tests::seeds_are_good_or_bad_as_they_say";
        let output = std::process::Command::new("sh")
            .args(["-c", "ulimit -v $1 && exec \"$2\" --exact $3 --test-threads 1", "sh"])
            .arg((kilobytes + (512 << 10)).to_string())
            .arg(std::env::current_exe().unwrap())
            .arg(test)
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && told.contains("1 passed"), "{told}\n{output:?}");
    }

    #[test]
    fn a_good_file_cut_anywhere_is_refused() {
        for (file, reader) in READERS {
            for (name, bytes) in seeds(file).iter().filter(|(name, _)| name.starts_with("good-")) {
                // Behind its last brace, a JSON file ends in white space.
                let whole = bytes.trim_ascii_end().len();
                for length in (0..whole).step_by(whole.div_ceil(2000)) {
                    assert!(read(file, reader, &bytes[..length]).is_err(), "{name} at {length}");
                }
            }
        }
    }

    /// Something done to a file.
    #[derive(Debug, Clone)]
    enum Damage {
        /// A byte is another.
        Byte(Index, u8),
        /// Eight bytes are a number that is hard on arithmetic.
        Number(Index, u64),
        /// A run of digits is such a number.
        Digits(Index, u64),
        /// A piece is gone.
        Cut(Index, usize),
        /// A piece is there twice.
        Twice(Index, usize),
    }

    impl Damage {
        fn apply(&self, bytes: &mut Vec<u8>) {
            if bytes.is_empty() {
                return;
            }
            match self {
                Self::Byte(at, byte) => {
                    let at = at.index(bytes.len());
                    bytes[at] = *byte;
                }
                Self::Number(at, number) => {
                    let at = at.index(bytes.len());
                    let end = bytes.len().min(at + 8);
                    bytes[at..end].copy_from_slice(&number.to_le_bytes()[..end - at]);
                }
                Self::Digits(at, number) => {
                    let is_digit = |at: &usize| bytes[*at].is_ascii_digit();
                    let places: Vec<usize> = (0..bytes.len()).filter(is_digit).collect();
                    let Some(at) = (!places.is_empty()).then(|| at.index(places.len())) else {
                        return;
                    };
                    let run = places[at..].iter().zip(places[at]..).take_while(|(a, b)| *a == b);
                    let end = places[at] + run.count();
                    bytes.splice(places[at]..end, number.to_string().into_bytes());
                }
                Self::Cut(at, length) | Self::Twice(at, length) => {
                    let at = at.index(bytes.len());
                    let end = bytes.len().min(at + length);
                    let piece = bytes[at..end].to_vec();
                    let twice = matches!(self, Self::Twice(..));
                    bytes.splice(at..end, if twice { piece.repeat(2) } else { Vec::new() });
                }
            }
        }
    }

    fn damage() -> impl Strategy<Value = Damage> {
        let number = prop::sample::select(vec![
            0,
            1,
            7,
            255,
            u64::from(u32::MAX),
            1 << 40,
            1 << 62,
            (1 << 63) - 1,
            1 << 63,
            u64::MAX - 7,
            u64::MAX,
        ]);
        prop_oneof![
            (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Damage::Byte(at, byte)),
            (any::<Index>(), number.clone()).prop_map(|(at, number)| Damage::Number(at, number)),
            (any::<Index>(), number).prop_map(|(at, number)| Damage::Digits(at, number)),
            (any::<Index>(), 1usize..40).prop_map(|(at, length)| Damage::Cut(at, length)),
            (any::<Index>(), 1usize..40).prop_map(|(at, length)| Damage::Twice(at, length)),
        ]
    }

    proptest! {
        #[test]
        fn no_damage_leads_to_a_panic(
            seed in any::<Index>(),
            damages in prop::collection::vec(damage(), 1..6),
        ) {
            for (file, reader) in READERS.into_iter().chain(MEDIA) {
                let mut bytes = seed.get(&seeds(file)).1.clone();
                for damage in &damages {
                    damage.apply(&mut bytes);
                }
                let _ = read(file, reader, &bytes);
            }
        }
    }
}
