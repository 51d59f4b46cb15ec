//! Files instead of devices: recordings as microphone, pictures as camera.

use std::path::{Path, PathBuf};
use std::time::Duration;

use outpost_agent_core::config::{MicrophoneConfig, Pace};
use outpost_agent_core::event::Frame;
use outpost_runtime::audio::{at_16_khz, has_speech};
use outpost_runtime::media::{Channel, PICTURES, SOUNDS, read_audio, read_image};
use outpost_runtime::{Audio, Image};
use tokio::time::Instant;
use tracing::warn;

use crate::{AudioSource, FrameSource, SenseError};

/// Sound per read, like a sound card's period.
const PERIOD: Duration = Duration::from_millis(50);

/// Sound files played in order, with a pause after each.
#[derive(Debug)]
pub struct FileMicrophone {
    playlist: Playlist,
    pace: Pace,
    gap: Duration,
    channel: Channel,
    playing: Playing,
    /// When the next period is due.
    due: Instant,
}

#[derive(Debug)]
struct Playing {
    name: String,
    audio: Audio,
    position: usize,
    /// The sound and the pause after it.
    length: usize,
}

impl FileMicrophone {
    /// Opens a sound file or a folder of them. Reads the first right away, so that a bad file fails
    /// at startup.
    ///
    /// # Errors
    /// If the file does not exist, the folder has no sound file, or the first cannot be played.
    pub fn open(path: &Path, config: &MicrophoneConfig) -> Result<Self, SenseError> {
        let &MicrophoneConfig { repeat, pace, gap, channel, .. } = config;
        let mut playlist = Playlist::open(path, &SOUNDS, repeat)?;
        let first = playlist.next().ok_or_else(|| Playlist::empty(path, &SOUNDS))?;
        let playing = Playing::open(&first, gap, channel)?;
        Ok(Self { playlist, pace, gap, channel, playing, due: Instant::now() })
    }
}

impl Playing {
    fn open(path: &Path, gap: Duration, channel: Channel) -> Result<Self, SenseError> {
        let audio = at_16_khz(&read_audio(path, channel)?)?;
        if !has_speech(&audio)? {
            warn!(file = %path.display(), "nobody seems to speak in this recording");
        }
        let length = audio.samples.len() + samples(gap, audio.rate);
        Ok(Self { name: file_name(path), audio, position: 0, length })
    }
}

impl AudioSource for FileMicrophone {
    fn read(&mut self, chunk: &mut Vec<f32>) -> Result<bool, SenseError> {
        if self.playing.position >= self.playing.length {
            let Some(path) = self.playlist.next() else { return Ok(false) };
            self.playing = Playing::open(&path, self.gap, self.channel)?;
        }
        let playing = &mut self.playing;
        let end =
            (playing.position + samples(PERIOD, playing.audio.rate).max(1)).min(playing.length);
        let sound = &playing.audio.samples;
        chunk.extend_from_slice(&sound[playing.position.min(sound.len())..end.min(sound.len())]);
        chunk.resize(end - playing.position, 0.0);
        playing.position = end;
        if self.pace == Pace::Realtime {
            self.due += PERIOD;
            std::thread::sleep(self.due.saturating_duration_since(Instant::now()));
        }
        Ok(true)
    }

    fn skip(&mut self) {
        std::thread::sleep(PERIOD);
        self.due = Instant::now();
    }

    fn name(&self) -> String {
        self.playing.name.clone()
    }

    fn is_live(&self) -> bool {
        self.pace == Pace::Realtime
    }
}

/// Picture files shown one after the other.
#[derive(Debug)]
pub struct FileCamera {
    playlist: Playlist,
    interval: Duration,
    shown: Option<(PathBuf, Image)>,
    /// The file that was read last, whether it can be shown or not.
    file: PathBuf,
    due: Option<Instant>,
}

impl FileCamera {
    /// Opens a picture or a folder of them. Reads the first right away, so that a bad file fails at
    /// startup.
    ///
    /// # Errors
    /// If the file does not exist, the folder has no picture, or the first cannot be decoded.
    pub fn open(path: &Path, repeat: bool, interval: Duration) -> Result<Self, SenseError> {
        let playlist = Playlist::open(path, &PICTURES, repeat)?;
        let first = playlist.files.first().ok_or_else(|| Playlist::empty(path, &PICTURES))?;
        // Those that cannot be shown say so when it is their turn.
        let image = read_image(first).map(|image| (first.clone(), image));
        let shown = match image {
            Ok(shown) => Some(shown),
            Err(_) if playlist.files.iter().skip(1).any(|file| read_image(file).is_ok()) => None,
            Err(fault) => return Err(fault.into()),
        };
        Ok(Self { shown, file: first.clone(), playlist, interval, due: None })
    }
}

impl FrameSource for FileCamera {
    fn read(&mut self) -> Result<Option<Frame>, SenseError> {
        let now = Instant::now();
        let due = self.due.unwrap_or(now);
        std::thread::sleep(due.saturating_duration_since(now));
        self.due = Some(due.max(now) + self.interval);
        let Some(path) = self.playlist.next() else { return Ok(None) };
        self.file.clone_from(&path);
        // A single repeated picture is decoded once.
        let image = match &self.shown {
            Some((shown, image)) if *shown == path => image.clone(),
            _ => read_image(&path)?,
        };
        self.shown = Some((path.clone(), image.clone()));
        Ok(Some(Frame::new(image, file_name(&path))))
    }

    fn name(&self) -> String {
        file_name(&self.file)
    }

    fn is_live(&self) -> bool {
        self.playlist.repeat
    }
}

/// Files at a path, sorted by name.
#[derive(Debug)]
struct Playlist {
    files: Vec<PathBuf>,
    next: usize,
    repeat: bool,
}

impl Playlist {
    fn open(path: &Path, extensions: &[&str], repeat: bool) -> Result<Self, SenseError> {
        let fault = |reason: String| SenseError::Path { path: path.to_owned(), reason };
        let about = std::fs::metadata(path).map_err(|error| fault(error.to_string()))?;
        if about.is_file() {
            return Ok(Self { files: vec![path.to_owned()], next: 0, repeat });
        }
        let entries = std::fs::read_dir(path).map_err(|error| fault(error.to_string()))?;
        let has_extension = |file: &PathBuf| {
            let extension =
                file.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
            extensions.iter().any(|known| known.eq_ignore_ascii_case(extension))
        };
        let mut files: Vec<PathBuf> = entries
            .filter_map(|entry| entry.ok().map(|entry| entry.path()))
            .filter(has_extension)
            .collect();
        files.sort();
        if files.is_empty() {
            return Err(Self::empty(path, extensions));
        }
        Ok(Self { files, next: 0, repeat })
    }

    fn empty(path: &Path, extensions: &[&str]) -> SenseError {
        let reason = format!("the folder has no file that ends in .{}", extensions.join(" or ."));
        SenseError::Path { path: path.to_owned(), reason }
    }
}

impl Iterator for Playlist {
    type Item = PathBuf;

    fn next(&mut self) -> Option<PathBuf> {
        if self.next == self.files.len() && self.repeat {
            self.next = 0;
        }
        let file = self.files.get(self.next)?.clone();
        self.next += 1;
        Some(file)
    }
}

fn file_name(path: &Path) -> String {
    path.file_name()
        .map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned())
}

fn samples(duration: Duration, rate: u32) -> usize {
    (duration.as_secs_f64() * f64::from(rate)).round() as usize
}
