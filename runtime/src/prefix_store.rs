//! Keys and values of system prefixes on disk, so that a tool list is computed once in the life of a model, not at each start.
//!
//! A file is named by what it holds: the model, the number format, the adapter and the tokens. It is written in the background,
//! beside its place and then renamed into it. What is damaged or doesn't fit is computed again.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::hash::{BuildHasher as _, RandomState};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use sha2::{Digest as _, Sha256};

use crate::decoder::KvFormat;
use crate::prefix_cache::Key;
use crate::session::{Adapter, Session};

/// What keys and values depend on, besides the tokens.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Identity<'a> {
    /// Names the weights.
    pub(crate) model: &'a str,
    pub(crate) kv: KvFormat,
    pub(crate) adapter: Adapter,
}

/// A folder of prefixes.
#[derive(Debug, Clone)]
pub(crate) struct PrefixStore {
    dir: Arc<PathBuf>,
}

/// First bytes of a file; the last is the layout.
const MAGIC: [u8; 8] = *b"outpkv\0\x01";

/// Bytes before keys and values: magic, positions, checksum.
const HEADER: usize = 8 + 8 + 4;

impl PrefixStore {
    /// Files beyond these are removed, the least recently used first.
    const MOST_FILES: usize = 8;
    /// As [`PrefixStore::MOST_FILES`], in bytes of all files.
    const MOST_BYTES: u64 = 1 << 30;

    pub(crate) fn new(dir: PathBuf) -> Self {
        Self { dir: Arc::new(dir) }
    }

    fn path(&self, identity: Identity<'_>, keys: &[Key]) -> PathBuf {
        let mut hasher = Sha256::new();
        hasher.update(MAGIC);
        hasher.update(format!("{}/{:?}/{:?}/", identity.model, identity.kv, identity.adapter));
        for key in keys {
            hasher.update(key.to_le_bytes());
        }
        self.dir.join(format!("{:x}.kv", hasher.finalize()))
    }

    /// The bytes that [`Session::save`] gave for these keys.
    pub(crate) fn read(&self, identity: Identity<'_>, keys: &[Key]) -> Option<Vec<u8>> {
        let path = self.path(identity, keys);
        let file = File::open(&path).ok()?;
        match Self::content(&file, keys.len()) {
            Ok(bytes) => {
                // The time of the last use decides what stays. A folder that can't be written to keeps what is there.
                let _ = file.set_modified(std::time::SystemTime::now());
                Some(bytes)
            }
            Err(fault) => {
                tracing::warn!("{}: {fault}; it is computed again", path.display());
                None
            }
        }
    }

    fn content(mut file: &File, positions: usize) -> io::Result<Vec<u8>> {
        let damaged = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
        let length = file.metadata()?.len();
        if length > Self::MOST_BYTES {
            return Err(damaged("larger than any kept prefix"));
        }
        let mut header = [0; HEADER];
        file.read_exact(&mut header)?;
        let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or(0));
        file.read_to_end(&mut bytes)?;
        if header[..16] != Self::header(positions, &bytes)[..16] {
            return Err(damaged("no kept prefix of this version"));
        }
        if header != Self::header(positions, &bytes) {
            return Err(damaged("damaged"));
        }
        Ok(bytes)
    }

    fn header(positions: usize, bytes: &[u8]) -> [u8; HEADER] {
        let mut header = [0; HEADER];
        header[..8].copy_from_slice(&MAGIC);
        header[8..16].copy_from_slice(&(positions as u64).to_le_bytes());
        header[16..].copy_from_slice(&crc32fast::hash(bytes).to_le_bytes());
        header
    }

    /// Keeps a session of exactly these keys, on a thread of its own.
    pub(crate) fn write(&self, identity: Identity<'_>, keys: &[Key], session: Session) {
        let (store, path, positions) = (self.clone(), self.path(identity, keys), keys.len());
        if path.exists() {
            return;
        }
        let keep = move || {
            let Some(bytes) = session.save() else { return };
            if bytes.len() as u64 > Self::MOST_BYTES / 2 {
                return;
            }
            match store.put(&path, positions, &bytes) {
                Ok(()) => tracing::debug!("{} keeps {positions} positions", path.display()),
                // It is a cache: the answer doesn't depend on it.
                Err(fault) => tracing::warn!("{}: {fault}", path.display()),
            }
        };
        if let Err(fault) = thread::Builder::new().name("prefix-store".into()).spawn(keep) {
            tracing::warn!("a prefix is not kept: {fault}");
        }
    }

    fn put(&self, path: &Path, positions: usize, bytes: &[u8]) -> io::Result<()> {
        // What a prefix was computed from is nobody else's business.
        DirBuilder::new().recursive(true).mode(0o700).create(&*self.dir)?;
        // Two containers can share the folder, and have the same process numbers.
        let number = RandomState::new().hash_one(0);
        let staging = path.with_extension(format!("{number:016x}.tmp"));
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o600);
        let written = options.open(&staging).and_then(|mut file| {
            file.write_all(&Self::header(positions, bytes))?;
            file.write_all(bytes)?;
            fs::rename(&staging, path)
        });
        if written.is_err() {
            let _ = fs::remove_file(&staging);
        }
        written?;
        self.trim()
    }

    /// Removes what is beyond the bounds.
    fn trim(&self) -> io::Result<()> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&*self.dir)? {
            let path = entry?.path();
            // Another process may have removed it just now.
            if path.extension().is_some_and(|end| end == "kv" || end == "tmp")
                && let Ok(about) = path.metadata()
            {
                files.push((about.modified()?, about.len(), path));
            }
        }
        files.sort_unstable_by(|a, b| b.cmp(a));
        let mut bytes = 0;
        for (number, (_, length, path)) in files.iter().enumerate() {
            bytes += length;
            if number >= Self::MOST_FILES || bytes > Self::MOST_BYTES {
                let _ = fs::remove_file(path);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDENTITY: Identity<'_> =
        Identity { model: "m", kv: KvFormat::Bf16, adapter: Adapter::None };

    fn put(store: &PrefixStore, keys: &[Key], bytes: &[u8]) {
        store.put(&store.path(IDENTITY, keys), keys.len(), bytes).unwrap();
    }

    #[test]
    fn what_was_kept_comes_back_for_the_same_tokens_only() {
        let dir = tempfile::tempdir().unwrap();
        let store = PrefixStore::new(dir.path().join("prefixes"));
        assert!(store.read(IDENTITY, &[1, 2, 3]).is_none());
        put(&store, &[1, 2, 3], b"keys and values");
        assert_eq!(store.read(IDENTITY, &[1, 2, 3]).unwrap(), b"keys and values");
        assert!(store.read(IDENTITY, &[1, 2]).is_none());
        assert!(store.read(IDENTITY, &[1, 2, 4]).is_none());
        assert!(store.read(Identity { model: "n", ..IDENTITY }, &[1, 2, 3]).is_none());
        assert!(store.read(Identity { kv: KvFormat::Int8, ..IDENTITY }, &[1, 2, 3]).is_none());
        let speech = Identity { adapter: Adapter::Speech, ..IDENTITY };
        assert!(store.read(speech, &[1, 2, 3]).is_none());
    }

    #[test]
    fn a_damaged_file_is_as_good_as_none() {
        let dir = tempfile::tempdir().unwrap();
        let store = PrefixStore::new(dir.path().to_owned());
        put(&store, &[7], b"0123456789");
        let path = store.path(IDENTITY, &[7]);
        let whole = fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            fs::write(&path, &damaged).unwrap();
            assert!(store.read(IDENTITY, &[7]).is_none(), "byte {at}");
            fs::write(&path, &whole[..at]).unwrap();
            assert!(store.read(IDENTITY, &[7]).is_none(), "cut at {at}");
        }
    }

    #[test]
    fn the_least_recently_used_make_room() {
        let dir = tempfile::tempdir().unwrap();
        let store = PrefixStore::new(dir.path().to_owned());
        let age = |keys: &[Key], seconds: u64| {
            let file = File::open(store.path(IDENTITY, keys)).unwrap();
            let then = std::time::SystemTime::now() - std::time::Duration::from_secs(seconds);
            file.set_modified(then).unwrap();
        };
        for key in 0..PrefixStore::MOST_FILES as Key {
            put(&store, &[key], b"x");
            age(&[key], 1000 - key);
        }
        // The oldest is used again.
        assert!(store.read(IDENTITY, &[0]).is_some());
        put(&store, &[99], b"x");
        assert!(store.read(IDENTITY, &[0]).is_some());
        assert!(store.read(IDENTITY, &[1]).is_none());
        assert!(store.read(IDENTITY, &[99]).is_some());
    }
}
