//! Evidence: pictures of alerts, as JPEG files named after the alert, in a folder of bounded size.

use std::fs;
use std::io;
use std::path::PathBuf;

use image::codecs::jpeg::JpegEncoder;
use image::{ExtendedColorType, ImageError};
use outpost_runtime::Image;
use outpost_tools::{durable, private};
use tracing::warn;

use crate::config::{EvidenceConfig, in_state_directory};
use crate::report::ReportId;

/// Largest picture in bytes that fits into one MQTT packet.
const MAX_JPEG: usize = 1_000_000;
/// JPEG qualities to try, best first, until the picture fits.
const QUALITIES: [u8; 4] = [85, 70, 50, 25];

/// Evidence cannot be stored or loaded.
#[derive(Debug, thiserror::Error)]
pub enum EvidenceError {
    /// A file system error.
    #[error("evidence {}: {source}: see that the folder can be written and has room", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// JPEG encoding failed.
    #[error("evidence: {0}")]
    Encode(#[from] ImageError),
    /// Unknown name.
    #[error("no evidence {0:?}: it was never there, or was deleted to make room")]
    Unknown(String),
    /// Evidence is not configured.
    #[error("no evidence is kept: set evidence.folder")]
    Off,
    /// Pictures shall be published, but none are kept.
    #[error("evidence.publish: no pictures are kept that could be published: set evidence.folder")]
    NothingToPublish,
}

/// Whether a text is a valid name: an alert id, perhaps with a suffix. Nothing else reaches the
/// file system.
pub fn is_name(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

/// The folder of pictures.
#[derive(Debug, Clone)]
pub struct Evidence {
    folder: PathBuf,
    limit: u64,
    publish: bool,
}

impl Evidence {
    /// The folder: the configuration's, else one in systemd's state directory, if there is one.
    pub fn folder(config: &EvidenceConfig) -> Option<PathBuf> {
        config.folder.clone().or_else(|| in_state_directory("evidence"))
    }

    /// Opens the configured folder, creating it if necessary. `None` if no evidence is kept.
    ///
    /// # Errors
    /// If it cannot be created, or there is none although its pictures shall be published.
    pub fn open(config: &EvidenceConfig) -> Result<Option<Self>, EvidenceError> {
        let Some(folder) = Self::folder(config) else {
            return if config.publish { Err(EvidenceError::NothingToPublish) } else { Ok(None) };
        };
        private::create_folder(&folder)
            .map_err(|source| EvidenceError::Io { path: folder.clone(), source })?;
        let limit = config.limit_mb * 1_000_000;
        Ok(Some(Self { folder, limit, publish: config.publish }))
    }

    /// Stores the picture of an alert and the look-back, oldest first. Older files make room before. Returns the names of what
    /// was stored.
    ///
    /// # Errors
    /// If the picture of the alert cannot be encoded or written.
    pub fn save(
        &self,
        alert: ReportId,
        picture: &Image,
        before: &[Image],
    ) -> Result<Vec<String>, EvidenceError> {
        let mut names = vec![alert.to_string()];
        names.extend((1..=before.len()).map(|index| format!("{alert}-before-{index}")));
        let pictures = std::iter::once(picture).chain(before);
        let pictures = pictures.map(jpeg).collect::<Result<Vec<_>, _>>()?;
        let size = pictures.iter().map(|picture| picture.len() as u64).sum();
        if let Err(error) = self.make_room(size) {
            warn!(%error, "old evidence cannot be deleted");
        }
        let mut stored = Vec::new();
        for (name, picture) in names.into_iter().zip(pictures) {
            match self.write(&name, &picture) {
                Ok(()) => stored.push(name),
                // The picture of the alert comes first; those from before it are extra.
                Err(error) if stored.is_empty() => return Err(error),
                Err(error) => warn!(%error, "a picture from before an alert is missing"),
            }
        }
        Ok(stored)
    }

    /// Loads a picture.
    ///
    /// # Errors
    /// If it does not exist or cannot be read.
    pub fn load(&self, name: &str) -> Result<Vec<u8>, EvidenceError> {
        if !is_name(name) {
            return Err(EvidenceError::Unknown(name.to_owned()));
        }
        let path = self.path(name);
        fs::read(&path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => EvidenceError::Unknown(name.to_owned()),
            _ => EvidenceError::Io { path, source },
        })
    }

    /// The picture that raised an alert, for everybody who listens; `None` unless `evidence.publish` is set.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn to_publish(&self, alert: ReportId) -> Result<Option<Vec<u8>>, EvidenceError> {
        self.publish.then(|| self.load(&alert.to_string())).transpose()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name).with_extension("jpg")
    }

    /// Atomic and durable.
    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), EvidenceError> {
        let path = self.path(name);
        durable::write(&path, bytes).map_err(|source| EvidenceError::Io { path, source })
    }

    /// Deletes the oldest files until there is room for so many bytes. Names start with a time-ordered id, so the first are the
    /// oldest. What is stored afterwards stays, even if it is more than the limit by itself.
    fn make_room(&self, size: u64) -> Result<(), EvidenceError> {
        let fault = |source| EvidenceError::Io { path: self.folder.clone(), source };
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.folder).map_err(fault)? {
            let path = entry.map_err(fault)?.path();
            if path.extension().is_some_and(|extension| extension == "jpg" || extension == "part") {
                let length = fs::metadata(&path).map_or(0, |about| about.len());
                files.push((path, length));
            }
        }
        files.sort();
        let mut total: u64 = files.iter().map(|(_, length)| length).sum();
        for (path, length) in files {
            if total + size <= self.limit {
                break;
            }
            fs::remove_file(&path).map_err(fault)?;
            total -= length;
        }
        Ok(())
    }
}

fn jpeg(image: &Image) -> Result<Vec<u8>, EvidenceError> {
    let mut bytes = Vec::new();
    for quality in QUALITIES {
        bytes.clear();
        JpegEncoder::new_with_quality(&mut bytes, quality).encode(
            &image.rgb,
            image.width,
            image.height,
            ExtendedColorType::Rgb8,
        )?;
        if bytes.len() <= MAX_JPEG {
            break;
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use outpost_runtime::media::image_from_bytes;

    use super::*;

    /// A picture that does not compress well.
    fn noisy(width: u32, height: u32, mut seed: u32) -> Image {
        let byte = |_| {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 24) as u8
        };
        let rgb: Vec<u8> = (0..width * height * 3).map(byte).collect();
        Image { width, height, rgb: rgb.into() }
    }

    fn store(limit_mb: u64) -> (tempfile::TempDir, Evidence) {
        let dir = tempfile::tempdir().unwrap();
        let config = EvidenceConfig {
            folder: Some(dir.path().join("kept")),
            limit_mb,
            ..EvidenceConfig::default()
        };
        let store = Evidence::open(&config).unwrap().unwrap();
        (dir, store)
    }

    #[test]
    fn pictures_come_back_by_name_and_the_oldest_make_room() {
        let (dir, store) = store(1);
        let picture = noisy(320, 240, 1);
        let before = [noisy(64, 48, 2)];
        let alerts: Vec<ReportId> = (0..20).map(|_| ReportId::new()).collect();
        for alert in &alerts {
            let names = store.save(*alert, &picture, &before).unwrap();
            assert_eq!(names, [alert.to_string(), format!("{alert}-before-1")]);
            let image = image_from_bytes(&store.load(&names[0]).unwrap()).unwrap();
            assert_eq!((image.width, image.height), (320, 240));
        }
        let kept = fs::read_dir(dir.path().join("kept")).unwrap();
        let total: u64 = kept.map(|entry| entry.unwrap().metadata().unwrap().len()).sum();
        assert!((500_000..=1_000_000).contains(&total), "{total} bytes");
        let first = store.load(&alerts[0].to_string()).unwrap_err().to_string();
        assert!(first.contains("deleted to make room"), "{first}");
        assert!(store.load(&alerts[19].to_string()).is_ok());
    }

    #[test]
    fn what_was_just_stored_stays_even_if_it_seems_old_or_is_more_than_the_limit() {
        let (dir, store) = store(1);
        let names = |alert: u64| -> Vec<String> {
            let alert = ReportId::read(&format!("019ab0c4-0000-7000-8000-{alert:012}")).unwrap();
            let before: [Image; 4] = std::array::from_fn(|_| noisy(640, 480, 2));
            store.save(alert, &noisy(320, 240, 1), &before).unwrap()
        };
        // The second alert has an earlier id: the clock was set back.
        let (later, earlier) = (names(2), names(1));
        assert!(earlier.len() == 5 && earlier.iter().all(|name| store.load(name).is_ok()));
        assert!(later.iter().all(|name| store.load(name).is_err()));
        let mode = |path: &Path| {
            std::os::unix::fs::PermissionsExt::mode(&fs::metadata(path).unwrap().permissions())
        };
        let folder = dir.path().join("kept");
        assert_eq!(mode(&folder) & 0o777, 0o700);
        assert_eq!(mode(&store.path(&earlier[0])) & 0o777, 0o600);
    }

    #[test]
    fn a_large_picture_still_fits_a_packet() {
        let (_dir, store) = store(10);
        let alert = ReportId::new();
        store.save(alert, &noisy(1000, 800, 3), &[]).unwrap();
        assert!(store.load(&alert.to_string()).unwrap().len() <= MAX_JPEG);
    }

    #[test]
    fn names_do_not_leave_the_folder() {
        let (dir, store) = store(1);
        fs::write(dir.path().join("secret.jpg"), "secret").unwrap();
        for name in ["../secret", "/etc/passwd", "", "a.b", "a/b", "ä"] {
            assert!(matches!(store.load(name), Err(EvidenceError::Unknown(_))), "{name}");
        }
    }
}
