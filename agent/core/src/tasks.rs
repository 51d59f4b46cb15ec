//! Named tasks of the model card: what is asked with which media. The words for transcription and reading are those that the
//! bundled model was trained on, those for translation the model card's; the others are plain English, since no trained wording
//! is known.

use std::str::FromStr;

use clap::ValueEnum;
use outpost_runtime::{Audio, Image, Request, ToolSpec};

use crate::event::Task;
use crate::prompting::{self, READ_IMAGE, TRANSCRIBE};
use crate::written::normalized;

/// A language that the model hears and speech is translated into, after the model card.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Language {
    /// After ISO 639-1.
    code: &'static str,
    name: &'static str,
}

/// The spoken languages; the first is on either side of every pair.
const LANGUAGES: [Language; 8] = [
    Language { code: "en", name: "English" },
    Language { code: "zh", name: "Chinese" },
    Language { code: "de", name: "German" },
    Language { code: "fr", name: "French" },
    Language { code: "it", name: "Italian" },
    Language { code: "ja", name: "Japanese" },
    Language { code: "es", name: "Spanish" },
    Language { code: "pt", name: "Portuguese" },
];

/// Two languages between which the model translates speech.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pair {
    from: Language,
    to: Language,
}

impl Pair {
    /// Every pair of the model card: from English, and into it.
    pub fn all() -> impl Iterator<Item = Self> {
        let [english, others @ ..] = LANGUAGES;
        let into = others.map(|to| Self { from: english, to });
        into.into_iter().chain(others.map(|from| Self { from, to: english }))
    }

    /// Its name on the command line, such as `en-de`.
    pub fn name(self) -> String {
        format!("{}-{}", self.from.code, self.to.code)
    }

    /// What it does, in a line.
    pub fn summary(self) -> String {
        format!("{} to {}", self.from.name, self.to.name)
    }

    /// What the model is asked to translate into.
    pub fn language(self) -> &'static str {
        self.to.name
    }
}

impl FromStr for Pair {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Self::all().find(|pair| pair.name() == name).ok_or_else(|| {
            let names: Vec<String> = Self::all().map(Self::name).collect();
            format!("there are {}; for another language, give --to instead", names.join(", "))
        })
    }
}

/// Stands between a transcript and its translation.
const SEPARATOR: &str = "<sep>";

/// Takes an answer apart into transcript and translation; `None` if the model gave only one of them.
pub fn split_transcript(answer: &str) -> Option<(&str, &str)> {
    let (transcript, translation) = answer.split_once(SEPARATOR)?;
    Some((transcript.trim(), translation.trim()))
}

/// What a task is given.
#[derive(Debug, Clone, Default)]
pub struct Given {
    /// Pictures, or the frames of a clip.
    pub images: Vec<Image>,
    /// A sound.
    pub audio: Option<Audio>,
    /// The user's own words, in place of the task's.
    pub prompt: Option<String>,
    /// The language to translate into.
    pub language: Option<String>,
    /// Whether a translation comes with what was said.
    pub transcript: bool,
}

/// What a task lacks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("task {task} needs {lacks}")]
pub struct Lacking {
    task: String,
    lacks: &'static str,
}

impl Task {
    /// Its name on the command line.
    pub fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// What it does, in a line.
    pub fn summary(self) -> String {
        let value = self.to_possible_value();
        let help = value.as_ref().and_then(|value| value.get_help());
        help.map(ToString::to_string).unwrap_or_default()
    }

    /// The media it takes, for a person.
    pub fn media(self) -> &'static str {
        match self {
            Self::Chat => "text",
            Self::Call => "text or sound",
            Self::Ocr | Self::Chart | Self::Table => "a picture",
            Self::Compare => "two pictures or more",
            Self::Video => "a clip",
            Self::Transcribe | Self::Summarize | Self::Audio => "a sound",
            Self::Translate => "a sound and a language",
            Self::SpeechQa => "a sound, and a picture if wanted",
        }
    }

    /// The question that goes with the media; `None` if the sound itself or the user's words ask.
    fn question(self, given: &Given) -> Option<String> {
        let fixed = match self {
            Self::Chat | Self::Call | Self::SpeechQa => return given.prompt.clone(),
            Self::Ocr => READ_IMAGE,
            Self::Chart => "Describe the chart in the image: its title, its axes and its values.",
            Self::Table => "Convert the table in the image to Markdown.",
            Self::Compare => {
                "Compare the images: what do they have in common, and how do they differ?"
            }
            Self::Video => "Summarize what happens in the video clip that these frames are from.",
            Self::Transcribe => TRANSCRIBE,
            Self::Translate => return given.prompt.clone().or_else(|| Some(translation(given))),
            Self::Summarize => "Summarize the audio clip.",
            Self::Audio => "Describe what is heard in the audio clip.",
        };
        given.prompt.clone().or_else(|| Some(fixed.to_owned()))
    }

    fn lacks(self, given: &Given) -> Option<&'static str> {
        let images = given.images.len();
        let sound = given.audio.is_some();
        match self {
            Self::Chat if given.prompt.is_none() => Some("a prompt"),
            Self::Call if given.prompt.is_none() && !sound => Some("a prompt or a sound (audio)"),
            Self::Ocr | Self::Chart | Self::Table if images == 0 => Some("a picture (image)"),
            Self::Compare if images < 2 => Some("two pictures or more (image)"),
            Self::Video if images == 0 => Some("a clip (video)"),
            Self::Transcribe | Self::Summarize | Self::Audio | Self::SpeechQa | Self::Translate
                if !sound =>
            {
                Some("a sound (audio)")
            }
            Self::Translate if given.language.is_none() && given.prompt.is_none() => {
                Some("a language, or a pair of them")
            }
            _ => None,
        }
    }

    /// The request; `tools` are offered where the task is to call them.
    ///
    /// # Errors
    /// When a medium is missing.
    pub fn request(
        self,
        given: Given,
        tools: &[ToolSpec],
        max_new_tokens: usize,
    ) -> Result<Request, Lacking> {
        let prompt = given.prompt.as_deref().map(normalized);
        let given = Given { prompt: prompt.filter(|prompt| !prompt.trim().is_empty()), ..given };
        if let Some(lacks) = self.lacks(&given) {
            return Err(Lacking { task: self.name(), lacks });
        }
        let question = self.question(&given);
        let turn = prompting::user(given.images, given.audio, question.as_deref());
        let offered = if self == Self::Call { tools } else { &[] };
        Ok(prompting::command(turn, offered, max_new_tokens))
    }
}

/// The model card's words for a translation.
fn translation(given: &Given) -> String {
    let language = given.language.as_deref().unwrap_or_default();
    if given.transcript {
        format!(
            "Transcribe the audio to text, and then translate the audio to {language}. Use {SEPARATOR} as a separator between \
             the original transcript and the translation."
        )
    } else {
        format!("Translate the audio to {language}.")
    }
}

#[cfg(test)]
mod tests {
    use outpost_runtime::Part;

    use super::*;

    fn image() -> Image {
        Image { width: 1, height: 1, rgb: vec![0; 3].into() }
    }

    fn sound() -> Audio {
        Audio { samples: vec![0.0].into(), rate: 16_000 }
    }

    #[test]
    fn every_task_says_what_it_lacks_and_takes_what_it_needs() {
        for task in Task::value_variants() {
            let lacking = task.request(Given::default(), &[], 8).unwrap_err().to_string();
            assert!(lacking.starts_with(&format!("task {} needs ", task.name())), "{lacking}");
            let given = Given {
                images: vec![image(), image()],
                audio: Some(sound()),
                prompt: Some("What?".into()),
                language: Some("German".into()),
                transcript: false,
            };
            let request = task.request(given, &[], 8).unwrap();
            assert!(request.turns[0].parts.len() == 4, "{request:?}");
            assert!(!task.summary().is_empty());
        }
    }

    #[test]
    fn a_translation_names_its_language_and_may_come_with_the_transcript() {
        let asked = |transcript| {
            let pair: Pair = "en-fr".parse().unwrap();
            let language = Some(pair.language().to_owned());
            let given = Given { audio: Some(sound()), language, transcript, ..Given::default() };
            let request = Task::Translate.request(given, &[], 8).unwrap();
            match &request.turns[0].parts[..] {
                [Part::Audio(_), Part::Text(text)] => text.clone(),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(asked(false), "Translate the audio to French.");
        assert_eq!(
            asked(true),
            "Transcribe the audio to text, and then translate the audio to French. Use <sep> as a separator between the \
             original transcript and the translation."
        );
        assert_eq!(split_transcript("Hello. <sep> Bonjour."), Some(("Hello.", "Bonjour.")));
        assert_eq!(split_transcript("Bonjour."), None);
    }

    #[test]
    fn there_is_a_pair_for_each_spoken_language_in_both_directions() {
        let names: Vec<String> = Pair::all().map(Pair::name).collect();
        assert_eq!(names.len(), 14);
        for code in ["zh", "de", "fr", "it", "ja", "es", "pt"] {
            assert!(names.contains(&format!("en-{code}")) && names.contains(&format!("{code}-en")));
        }
        assert_eq!("ja-en".parse::<Pair>().unwrap().summary(), "Japanese to English");
        let fault = "de-fr".parse::<Pair>().unwrap_err();
        assert!(fault.contains("en-de") && fault.contains("--to"), "{fault}");
    }

    #[test]
    fn a_spoken_question_is_asked_by_the_sound_alone() {
        let given = Given { audio: Some(sound()), images: vec![image()], ..Given::default() };
        let request = Task::SpeechQa.request(given, &[], 8).unwrap();
        assert!(matches!(request.turns[0].parts[..], [Part::Image(_), Part::Audio(_)]));
    }
}
