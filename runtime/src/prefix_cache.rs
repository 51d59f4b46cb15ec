//! Sessions kept from earlier requests: what a new prompt shares with one of them is not computed again.
//!
//! Tokens alone do not name a prefix: placeholder runs look alike for every picture, and the keys and values depend on the
//! adapter. So a prefix is a list of [`Key`]s under an [`Adapter`].

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::PathBuf;

use crate::error::Result;
use crate::prefix_store::PrefixStore;
use crate::prompt::{Medium, Prompt};
use crate::session::{Adapter, Session};

/// Names what stands at a position: the token id, or the medium's content and the row within it.
pub(crate) type Key = u64;

/// Sessions kept from earlier requests: system prefixes, and the latest conversation.
#[derive(Debug, Default)]
pub struct PrefixCache {
    /// Most recently used last.
    prefixes: VecDeque<Kept>,
    latest: Option<Kept>,
    /// A prompt that was computed to its end, and the logits there.
    ready: Option<(Kept, Vec<f32>)>,
    /// Where system prefixes outlive the process.
    store: Option<PrefixStore>,
}

/// Where a beginning is kept.
#[derive(Debug, Clone, Copy)]
enum Place {
    /// Among the system prefixes.
    Prefix(usize),
    Latest,
}

#[derive(Debug)]
struct Kept {
    adapter: Adapter,
    keys: Vec<Key>,
    session: Session,
}

impl PrefixCache {
    /// System prefixes kept at most: three adapters, and a change of the tool list.
    const MAX_PREFIXES: usize = 4;

    /// An empty cache.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty cache that keeps system prefixes in a folder as well, for the next start. The folder is made when it is needed,
    /// and bounded.
    pub fn on_disk(dir: PathBuf) -> Self {
        Self { store: Some(PrefixStore::new(dir)), ..Self::default() }
    }

    /// The store on disk, if there is one.
    pub(crate) fn store(&self) -> Option<&PrefixStore> {
        self.store.as_ref()
    }

    /// Forgets everything in memory, as must be done when the model was changed or a forward pass was broken off.
    pub fn clear(&mut self) {
        self.prefixes.clear();
        self.latest = None;
        self.ready = None;
    }

    /// A session that holds the longest kept beginning of `keys`, never all of it: the last position must be computed to have
    /// its logits.
    pub(crate) fn resume(&mut self, adapter: Adapter, keys: &[Key]) -> Result<Option<Session>> {
        let place = self.longest(adapter, keys);
        // It goes on or makes room: kept beside a new one, a context would be held twice.
        let latest = self.latest.take();
        match (place, latest) {
            (Some((Place::Latest, length)), Some(kept)) => kept.session.cut(length).map(Some),
            (Some((Place::Prefix(index), length)), _) => self.fork_prefix(index, length),
            _ => Ok(None),
        }
    }

    /// As [`PrefixCache::resume`], and the latest conversation stays: what is computed may not be wanted.
    pub(crate) fn find(&mut self, adapter: Adapter, keys: &[Key]) -> Result<Option<Session>> {
        match (self.longest(adapter, keys), &self.latest) {
            (Some((Place::Latest, length)), Some(kept)) => kept.session.fork(length).map(Some),
            (Some((Place::Prefix(index), length)), _) => self.fork_prefix(index, length),
            _ => Ok(None),
        }
    }

    /// Where the longest beginning is kept, and its length.
    fn longest(&self, adapter: Adapter, keys: &[Key]) -> Option<(Place, usize)> {
        let shared = |kept: &Kept| {
            let common = kept.keys.iter().zip(keys).take_while(|(a, b)| a == b).count();
            if kept.adapter == adapter { common.min(keys.len() - 1) } else { 0 }
        };
        let best =
            (0..self.prefixes.len()).map(|index| (shared(&self.prefixes[index]), index)).max();
        let of_latest = self.latest.as_ref().map_or(0, shared);
        match best {
            Some((length, index)) if length >= of_latest && length > 0 => {
                Some((Place::Prefix(index), length))
            }
            _ => (of_latest > 0).then_some((Place::Latest, of_latest)),
        }
    }

    /// A fork of a system prefix, which is the most recently used one then.
    fn fork_prefix(&mut self, index: usize, length: usize) -> Result<Option<Session>> {
        let Some(kept) = self.prefixes.remove(index) else { return Ok(None) };
        let session = kept.session.fork(length);
        self.prefixes.push_back(kept);
        session.map(Some)
    }

    /// Keeps a copy of a system prefix.
    pub(crate) fn keep_prefix(
        &mut self,
        adapter: Adapter,
        keys: &[Key],
        session: &Session,
    ) -> Result<()> {
        if self.prefixes.iter().any(|kept| kept.adapter == adapter && kept.keys == keys) {
            return Ok(());
        }
        if self.prefixes.len() == Self::MAX_PREFIXES {
            self.prefixes.pop_front();
        }
        let session = session.fork(keys.len())?;
        self.prefixes.push_back(Kept { adapter, keys: keys.to_vec(), session });
        Ok(())
    }

    /// Keeps a prompt that may be asked next, computed to its end.
    pub(crate) fn keep_ready(
        &mut self,
        adapter: Adapter,
        keys: Vec<Key>,
        (session, logits): (Session, Vec<f32>),
    ) {
        self.ready = Some((Kept { adapter, keys, session }, logits));
    }

    /// The prompt that was computed ahead, if it is this one; another one is thrown away.
    pub(crate) fn take_ready(
        &mut self,
        adapter: Adapter,
        keys: &[Key],
    ) -> Option<(Session, Vec<f32>)> {
        let (kept, logits) = self.ready.take()?;
        (kept.adapter == adapter && kept.keys == keys).then_some((kept.session, logits))
    }

    /// Keeps the conversation that was just answered, for its next turn.
    pub(crate) fn keep_latest(&mut self, adapter: Adapter, keys: Vec<Key>, session: Session) {
        self.latest = Some(Kept { adapter, keys, session });
    }
}

/// The keys of a prompt, one a position.
pub(crate) fn keys(prompt: &Prompt) -> Vec<Key> {
    let mut keys: Vec<Key> = prompt.ids.iter().map(|id| Key::from(*id)).collect();
    for placed in &prompt.media {
        let digest = digest(&placed.medium);
        for row in 0..placed.rows {
            let mut hasher = DefaultHasher::new();
            (digest, row).hash(&mut hasher);
            // Above all token ids, so that no text position equals a medium's.
            keys[placed.start + row] = hasher.finish() | 1 << 63;
        }
    }
    keys
}

fn digest(medium: &Medium) -> u64 {
    let mut hasher = DefaultHasher::new();
    match medium {
        Medium::Audio(audio) => {
            audio.rate.hash(&mut hasher);
            audio.samples.iter().for_each(|sample| sample.to_bits().hash(&mut hasher));
        }
        Medium::Image(image) => (image.width, image.height, &image.rgb).hash(&mut hasher),
    }
    hasher.finish()
}
