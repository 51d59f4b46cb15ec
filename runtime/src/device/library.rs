//! CUDA's part of libtorch. No symbol of it is named in a program, so the linker drops it, and it is loaded here: one
//! program serves installations with CUDA and without.

use std::path::{Path, PathBuf};

use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};

use super::NoCuda;

/// What holds libtorch's CUDA kernels.
const CUDA: &str = "libtorch_cuda.so";
/// What every program with libtorch links.
const CPU: &str = "libtorch_cpu.so";

/// Loads CUDA's part of libtorch from where the rest of it lies. libtorch asks for it only once, so this comes before
/// anything else that touches libtorch.
pub(super) fn load_cuda() -> Result<(), NoCuda> {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let Some(folder) = folder_of(CPU, &maps) else {
        return Err(NoCuda::NotLoaded { reason: format!("{CPU} is not among the mapped files") });
    };
    let path = folder.join(CUDA);
    if !path.exists() {
        return Err(NoCuda::NotInstalled { folder });
    }
    load(&path).map_err(|reason| NoCuda::NotLoaded { reason })?;
    tracing::info!(library = %path.display(), "loaded");
    Ok(())
}

/// The version of CUDA's runtime among the mapped files, as in `libcudart.so.13`.
pub(super) fn cuda_version() -> Option<u32> {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    cudart_of(&maps)
}

fn files(maps: &str) -> impl Iterator<Item = &Path> {
    // An address, flags, an offset, a device and an inode stand before the name.
    maps.lines().filter_map(|line| line.find('/').map(|at| Path::new(&line[at..])))
}

fn folder_of(library: &str, maps: &str) -> Option<PathBuf> {
    let mut files = files(maps).filter(|path| path.file_name().is_some_and(|name| name == library));
    files.next()?.parent().map(Path::to_path_buf)
}

fn cudart_of(maps: &str) -> Option<u32> {
    let version = |path: &Path| {
        let name = path.file_name()?.to_str()?;
        name.strip_prefix("libcudart.so.")?.split('.').next()?.parse().ok()
    };
    files(maps).find_map(version)
}

/// Loads a shared library for the life of the process, its symbols open to all others; the loader's own words if it can't.
#[expect(unsafe_code, reason = "loading a library runs its initialisers; there is no other way")]
pub(super) fn load(path: &Path) -> Result<(), String> {
    // SAFETY: what runs here are the initialisers of a library of the same libtorch that this program is linked with, and of
    // what it needs. They register kernels and hooks, under libtorch's own locks, and expect no more than that
    // `libtorch_cpu.so` is loaded, which the caller has seen. The handle is never closed, so nothing they register dangles.
    let library = unsafe { Library::open(Some(path), RTLD_NOW | RTLD_GLOBAL) };
    let library = library.map_err(|fault| fault.to_string())?;
    let _ = library.into_raw();
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// A library that creates a file when it is loaded, and has a symbol; or that needs one that nobody has.
    fn stub(folder: &Path, source: &str) -> PathBuf {
        let (code, library) = (folder.join("stub.c"), folder.join(CUDA));
        std::fs::write(&code, source).unwrap();
        let mut cc = Command::new("cc");
        cc.args(["-shared", "-fPIC", "-o"]).args([&library, &code]);
        assert!(cc.status().unwrap().success(), "{cc:?}");
        library
    }

    #[test]
    fn a_library_is_loaded_and_its_initialiser_runs() {
        let folder = tempfile::tempdir().unwrap();
        let note = folder.path().join("loaded");
        let source = format!(
            "#include <stdio.h>\n__attribute__((constructor)) static void note(void) {{ fclose(fopen(\"{}\", \"w\")); }}\n\
             int outpost_stub_of_cuda(void) {{ return 1; }}\n",
            note.display()
        );
        let library = stub(folder.path(), &source);
        assert!(!note.exists());
        load(&library).unwrap();
        assert!(note.exists());
        // It stays: the loader says so among the mapped files.
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        assert_eq!(folder_of(CUDA, &maps).as_deref(), Some(folder.path()));
    }

    #[test]
    fn a_library_that_needs_what_is_not_there_is_refused_in_the_loaders_words() {
        let folder = tempfile::tempdir().unwrap();
        let source = "extern int outpost_nobody_has_this(void);\nint (*needed)(void) = outpost_nobody_has_this;\n";
        let library = stub(folder.path(), source);
        let reason = load(&library).unwrap_err();
        assert!(reason.contains("outpost_nobody_has_this"), "{reason}");
        let reason = load(&folder.path().join("absent.so")).unwrap_err();
        assert!(reason.contains("absent.so"), "{reason}");
    }

    #[test]
    fn mapped_files_tell_where_libtorch_lies_and_which_cuda_it_brings() {
        let maps = "7f00-7f01 r-xp 00000000 08:01 12   /usr/lib/libc.so.6\n7f02-7f03 rw-p 00000000 00:00 0\n\
                    7f04-7f05 r-xp 00000000 08:01 13   /opt/lib torch/lib/libtorch_cpu.so\n\
                    7f06-7f07 r-xp 00000000 08:01 14   /opt/lib torch/lib/libcudart.so.13\n";
        assert_eq!(folder_of(CPU, maps), Some("/opt/lib torch/lib".into()));
        assert_eq!(folder_of(CUDA, maps), None);
        assert_eq!(cudart_of(maps), Some(13));
        assert_eq!(cudart_of(""), None);
    }

    #[test]
    fn a_libtorch_without_cuda_says_where_it_lies() {
        // The tests run on whichever libtorch was set up.
        match load_cuda() {
            Ok(()) => assert!(cuda_version().is_some()),
            Err(NoCuda::NotInstalled { folder }) => {
                assert!(folder.join(CPU).exists(), "{}", folder.display());
            }
            Err(fault) => panic!("{fault}"),
        }
    }
}
