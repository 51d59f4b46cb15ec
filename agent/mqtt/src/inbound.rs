//! Decodes incoming messages: untrusted bytes → [`Inbound`], or an error that says what is
//! expected. All lengths are bounded.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use outpost_agent_core::event::{Ask, Consent, Inbound, Origin, RespondTo, Task};
use outpost_runtime::ToolCall;
use outpost_tools::fault::{plainly, unmarked};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::session::Arrival;
use crate::topics::{AskForm, Incoming, Topics};

/// Maximum size of a text message in bytes; one with media may be as large as a packet.
pub const MAX_TEXT: usize = 64 * 1024;
/// Maximum total size of media in a message, before base64.
pub const MAX_MEDIA: usize = 640 * 1024;

/// Maximum length of a prompt in characters.
const MAX_PROMPT: usize = 4000;
/// Maximum length of a transaction or language in characters.
const MAX_WORD: usize = 256;
/// Maximum number of pictures.
const MAX_IMAGES: usize = 8;

/// Why a retained setting is refused.
const STALE: &str = "what opens a microphone or a camera must not be retained: it would be set again on every connection";

/// An invalid message.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
#[error("{topic}: {reason}")]
pub struct PayloadError {
    /// Where it arrived.
    pub topic: String,
    /// What is wrong, and what is expected.
    pub reason: String,
    /// For the answer, if it could be read.
    pub transaction: Option<String>,
    /// For the answer.
    pub respond_to: Option<RespondTo>,
}

/// The JSON of `ask`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct AskPayload {
    prompt: String,
    transaction: Option<String>,
    task: Option<Task>,
    language: Option<String>,
    audio: Option<String>,
    image: Images,
    stream: bool,
    call: Option<CallPayload>,
}

/// A call instead of a prompt.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CallPayload {
    name: String,
    #[serde(default)]
    arguments: Map<String, Value>,
}

impl CallPayload {
    fn boxed(self) -> Box<ToolCall> {
        Box::new(ToolCall { name: self.name, arguments: self.arguments })
    }
}

/// One picture or a list of them, each in base64.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Images {
    One(String),
    Many(Vec<String>),
}

impl Default for Images {
    fn default() -> Self {
        Self::Many(Vec::new())
    }
}

/// Decodes a message. `None` for foreign topics, and for an empty message on a `set/` topic: it withdraws what was retained there.
///
/// # Errors
/// [`PayloadError`] naming the topic and what is expected there.
pub fn decode(arrival: &Arrival, topics: &Topics) -> Result<Option<Inbound>, PayloadError> {
    let Some(incoming) = topics.incoming(&arrival.topic) else { return Ok(None) };
    match incoming {
        Incoming::Ask(form) => ask(arrival, form, topics).map(|ask| Some(Inbound::Ask(ask))),
        _ if arrival.payload.is_empty() && incoming.is_setting() => Ok(None),
        Incoming::Evidence if arrival.retained => {
            let reason =
                "a request must not be retained: it would be made again on every connection";
            Err(refusal(arrival, reason.into(), None, None))
        }
        Incoming::Evidence => text(&arrival.payload)
            .and_then(|name| {
                let reason = || "expected the id of an alert, or a name of its evidence".to_owned();
                outpost_agent_core::evidence::is_name(name)
                    .then(|| name.to_owned())
                    .ok_or_else(reason)
            })
            .map(|name| Some(Inbound::Evidence(name)))
            .map_err(|reason| refusal(arrival, reason, None, None)),
        Incoming::Confirm => consent(arrival)
            .map(|consent| Some(Inbound::Confirm(consent)))
            .map_err(|reason| refusal(arrival, reason, None, None)),
        Incoming::Set(setting) => text(&arrival.payload)
            .and_then(|text| switch(text).ok_or_else(|| "expected ON or OFF".into()))
            .map(setting)
            .and_then(|setting| {
                let is_stale = setting.opens_sense() && arrival.retained;
                if is_stale { Err(STALE.into()) } else { Ok(Some(Inbound::Set(setting))) }
            })
            .map_err(|reason| refusal(arrival, reason, None, None)),
    }
}

/// The JSON of `set/confirm`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ConsentPayload {
    call: String,
    confirm: bool,
}

fn consent(arrival: &Arrival) -> Result<Consent, String> {
    if arrival.retained {
        return Err(
            "a yes must not be retained: it would be given again on every connection".into()
        );
    }
    let text = text(&arrival.payload)?;
    if let Some(yes) = switch(text) {
        return Ok(Consent { call: None, yes });
    }
    let payload: ConsentPayload = serde_json::from_str(text)
        .map_err(|_| "expected ON, OFF or {\"call\": \"…\", \"confirm\": true}")?;
    Ok(Consent { call: Some(payload.call), yes: payload.confirm })
}

fn refusal(
    arrival: &Arrival,
    reason: String,
    transaction: Option<String>,
    respond_to: Option<RespondTo>,
) -> PayloadError {
    PayloadError { topic: arrival.topic.clone(), reason, transaction, respond_to }
}

fn ask(arrival: &Arrival, form: AskForm, topics: &Topics) -> Result<Ask, PayloadError> {
    let respond_to = match &arrival.response_topic {
        Some(topic) if !topics.may_respond(topic) => {
            let reason =
                "no answer may go to that response topic: use one outside of outpost/ and $";
            let transaction = transaction(&arrival.payload).filter(|_| form == AskForm::Text);
            return Err(refusal(arrival, reason.into(), transaction, None));
        }
        Some(topic) => {
            Some(RespondTo { topic: topic.clone(), correlation: arrival.correlation.clone() })
        }
        None => None,
    };
    let read = match form {
        AskForm::Text => text_or_media(&arrival.payload),
        AskForm::Audio => {
            medium(&arrival.payload).map(|audio| Ask { audio: Some(audio), ..Ask::default() })
        }
        AskForm::Image => {
            medium(&arrival.payload).map(|image| Ask { images: vec![image], ..Ask::default() })
        }
    };
    let ask = match read {
        Ok(ask) => Ask { respond_to, ..ask },
        Err(reason) => {
            let transaction = transaction(&arrival.payload).filter(|_| form == AskForm::Text);
            return Err(refusal(arrival, reason, transaction, respond_to));
        }
    };
    let fault = if arrival.retained {
        // It would be repeated on every connection.
        Some("a question must not be retained".to_owned())
    } else {
        fault(&ask)
    };
    match fault {
        None => Ok(ask),
        // Oversized ones are not echoed.
        Some(reason) => {
            let transaction = ask.transaction.filter(|word| word.chars().count() <= MAX_WORD);
            Err(refusal(arrival, reason, transaction, ask.respond_to))
        }
    }
}

/// The transaction of a question that could not be read, so that whoever asked learns of it.
fn transaction(payload: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Asked {
        transaction: String,
    }
    let asked: Asked = serde_json::from_slice(unmarked(payload)).ok()?;
    Some(asked.transaction).filter(|word| word.chars().count() <= MAX_WORD)
}

/// Error in an ask that could be parsed.
fn fault(ask: &Ask) -> Option<String> {
    let too_long = |text: &str, limit: usize| text.chars().count() > limit;
    let words = [("transaction", &ask.transaction), ("language", &ask.language)];
    let long_word =
        words.iter().find(|(_, word)| word.as_ref().is_some_and(|word| too_long(word, MAX_WORD)));
    let media = ask.images.iter().chain(&ask.audio).map(Vec::len).sum::<usize>();
    if let Some((name, _)) = long_word {
        Some(format!("the {name} is longer than {MAX_WORD} characters"))
    } else if ask.call.is_some() && (media > 0 || ask.task.is_some() || !ask.prompt.is_empty()) {
        Some("a call stands alone: leave out prompt, task, audio and image".into())
    } else if ask.prompt.trim().is_empty() && media == 0 && ask.call.is_none() {
        Some("the prompt is empty".into())
    } else if too_long(&ask.prompt, MAX_PROMPT) {
        Some(format!("the prompt is longer than {MAX_PROMPT} characters"))
    } else if ask.images.len() > MAX_IMAGES {
        Some(format!("there are more than {MAX_IMAGES} pictures"))
    } else if media > MAX_MEDIA {
        Some(format!("the media have more than {MAX_MEDIA} bytes"))
    } else {
        None
    }
}

fn medium(payload: &[u8]) -> Result<Vec<u8>, String> {
    if payload.is_empty() { Err("the file is empty".into()) } else { Ok(payload.to_vec()) }
}

fn text_or_media(payload: &[u8]) -> Result<Ask, String> {
    let payload = unmarked(payload);
    let is_object = payload.trim_ascii_start().first() == Some(&b'{');
    if !is_object {
        return Ok(Ask { prompt: text(payload)?.to_owned(), ..Ask::default() });
    }
    let ask: AskPayload = serde_json::from_slice(payload).map_err(|fault| {
        let fault = plainly(&fault.to_string());
        format!("expected {{\"prompt\": \"…\", \"transaction\": \"…\"}}, as docs/mqtt.md has it: {fault}")
    })?;
    let decode = |key: &str, text: String| {
        BASE64.decode(text).map_err(|fault| format!("{key}: expected base64: {fault}"))
    };
    let images = match ask.image {
        Images::One(image) => vec![image],
        Images::Many(images) => images,
    };
    Ok(Ask {
        transaction: ask.transaction,
        prompt: ask.prompt,
        task: ask.task,
        language: ask.language,
        audio: ask.audio.map(|audio| decode("audio", audio)).transpose()?,
        images: images.into_iter().map(|image| decode("image", image)).collect::<Result<_, _>>()?,
        stream: ask.stream,
        respond_to: None,
        origin: Origin::Ask,
        call: ask.call.map(CallPayload::boxed),
    })
}

fn text(payload: &[u8]) -> Result<&str, String> {
    if payload.len() > MAX_TEXT {
        return Err(format!("{} bytes are more than {MAX_TEXT}", payload.len()));
    }
    let text =
        std::str::from_utf8(unmarked(payload)).map_err(|_| "the payload is not UTF-8 text")?;
    Ok(text.trim())
}

/// Spellings used by brokers, Home Assistant and people.
fn switch(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "on" | "true" | "1" => Some(true),
        "off" | "false" | "0" => Some(false),
        _ => None,
    }
}

/// Where to send the rejection of a message that was understood.
pub(super) fn asker(inbound: Inbound) -> (Option<String>, Option<RespondTo>) {
    match inbound {
        Inbound::Ask(ask) => (ask.transaction, ask.respond_to),
        Inbound::Set(_) | Inbound::Talk(_) | Inbound::Confirm(_) | Inbound::Evidence(_) => {
            (None, None)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use outpost_agent_core::event::Setting;

    fn read(path: &str, payload: impl AsRef<[u8]>) -> Result<Option<Inbound>, PayloadError> {
        let topic = format!("outpost/desk/{path}");
        let payload = payload.as_ref().to_vec();
        decode(&Arrival { topic, payload, ..Arrival::default() }, &Topics::new("desk"))
    }

    #[test]
    fn asks_and_settings_are_read() {
        let bare = Ask { prompt: "lights off".into(), ..Ask::default() };
        assert_eq!(read("ask", "lights off"), Ok(Some(Inbound::Ask(bare))));
        let whole = Ask {
            transaction: Some("7".into()),
            prompt: "hi".into(),
            task: Some(Task::SpeechQa),
            language: Some("German".into()),
            audio: Some(b"wav".to_vec()),
            images: vec![b"png".to_vec()],
            stream: true,
            ..Ask::default()
        };
        let text = r#" {"prompt": "hi", "transaction": "7", "task": "speech-qa", "language": "German",
            "audio": "d2F2", "image": "cG5n", "stream": true}"#;
        assert_eq!(read("ask", text), Ok(Some(Inbound::Ask(whole))));
        let images = Ask { images: vec![b"png".to_vec(), b"jpg".to_vec()], ..Ask::default() };
        assert_eq!(read("ask", r#"{"image": ["cG5n", "anBn"]}"#), Ok(Some(Inbound::Ask(images))));
        assert_eq!(
            read("ask/audio", [0, 255]),
            Ok(Some(Inbound::Ask(Ask { audio: Some(vec![0, 255]), ..Ask::default() })))
        );
        assert_eq!(
            read("ask/image", [0, 255]),
            Ok(Some(Inbound::Ask(Ask { images: vec![vec![0, 255]], ..Ask::default() })))
        );
        assert_eq!(read("set/mute", "ON"), Ok(Some(Inbound::Set(Setting::Mute(true)))));
        assert_eq!(read("set/camera", "off"), Ok(Some(Inbound::Set(Setting::Camera(false)))));
        assert_eq!(read("tool/x", "hi"), Ok(None));
    }

    #[test]
    fn a_yes_is_for_one_device_and_never_retained() {
        let consent = |call: Option<&str>, yes| {
            Ok(Some(Inbound::Confirm(Consent { call: call.map(str::to_owned), yes })))
        };
        assert_eq!(read("set/confirm", "ON"), consent(None, true));
        assert_eq!(read("set/confirm", "off"), consent(None, false));
        assert_eq!(
            read("set/confirm", r#"{"call": "7", "confirm": true}"#),
            consent(Some("7"), true)
        );
        assert_eq!(read("set/confirm", ""), Ok(None));
        for payload in ["yes", "{}", r#"{"confirm": true}"#, r#"{"call": 7, "confirm": true}"#] {
            let fault = read("set/confirm", payload).unwrap_err().to_string();
            assert!(fault.contains("expected ON"), "{fault}");
        }
        let arrival = |topic: &str, retained| Arrival {
            topic: topic.into(),
            payload: b"ON".to_vec(),
            retained,
            ..Arrival::default()
        };
        let topics = Topics::new("desk").in_group(Some("desks"));
        let fault = decode(&arrival("outpost/desk/set/confirm", true), &topics).unwrap_err();
        assert!(fault.reason.contains("retained"), "{fault}");
        assert_eq!(decode(&arrival("outpost/@desks/set/confirm", false), &topics), Ok(None));
    }

    #[test]
    fn a_refusal_keeps_the_transaction() {
        let long = "a".repeat(MAX_TEXT + 1);
        let media = BASE64.encode(vec![0; MAX_MEDIA + 1]);
        let pictures = format!("[{}]", ["\"AA==\""; MAX_IMAGES + 1].join(","));
        let deep = "[".repeat(500) + &"]".repeat(500);
        for fields in [
            r#""prompt": "lock the front door", "x": 1"#.to_owned(),
            r#""prompt": 3"#.into(),
            format!(r#""prompt": "{long}""#),
            format!(r#""prompt": "{}""#, "a".repeat(MAX_PROMPT + 1)),
            format!(r#""audio": "{media}""#),
            format!(r#""image": {pictures}"#),
            format!(r#""call": {deep}"#),
            r#""image": "?""#.into(),
        ] {
            for payload in [
                format!(r#"{{{fields}, "transaction": "z3"}}"#),
                format!(r#"{{"transaction": "z3", {fields}}}"#),
            ] {
                let fault = read("ask", payload).unwrap_err();
                assert_eq!(fault.transaction.as_deref(), Some("z3"), "{}", fault.reason);
            }
        }
        let arrival = Arrival {
            topic: "outpost/desk/ask".into(),
            payload: br#"{"prompt": "hi", "transaction": "z3"}"#.to_vec(),
            response_topic: Some("$SYS/x".into()),
            ..Arrival::default()
        };
        let fault = decode(&arrival, &Topics::new("desk")).unwrap_err();
        assert_eq!(fault.transaction.as_deref(), Some("z3"));
    }

    #[test]
    fn what_is_retained_closes_senses_and_opens_none() {
        let retained = |path: &str, payload: &str| {
            let topic = format!("outpost/desk/{path}");
            let payload = payload.as_bytes().to_vec();
            let arrival = Arrival { topic, payload, retained: true, ..Arrival::default() };
            decode(&arrival, &Topics::new("desk"))
        };
        for (path, closes, opens) in [
            ("set/mute", "ON", "OFF"),
            ("set/mute", "true", "0"),
            ("set/listen", "off", "on"),
            ("set/camera", "0", "1"),
        ] {
            let kept = retained(path, closes);
            assert!(matches!(kept, Ok(Some(Inbound::Set(_)))) && kept == read(path, closes));
            assert!(retained(path, opens).unwrap_err().reason.contains("must not be retained"));
            assert!(matches!(read(path, opens), Ok(Some(Inbound::Set(_)))));
            assert_eq!((retained(path, ""), read(path, "")), (Ok(None), Ok(None)));
        }
        assert!(retained("get/evidence", "a").unwrap_err().reason.contains("must not be retained"));
    }

    #[test]
    fn an_answer_goes_where_the_asker_wants_it_and_nowhere_else() {
        let arrival = |topic: &str| Arrival {
            topic: "outpost/desk/ask".into(),
            payload: b"hi".to_vec(),
            response_topic: Some(topic.into()),
            correlation: Some(vec![7]),
            ..Arrival::default()
        };
        let topics = Topics::new("desk");
        let respond_to = RespondTo { topic: "app/answers".into(), correlation: Some(vec![7]) };
        let ask = Ask { prompt: "hi".into(), respond_to: Some(respond_to), ..Ask::default() };
        assert_eq!(decode(&arrival("app/answers"), &topics), Ok(Some(Inbound::Ask(ask))));
        for topic in ["outpost/other/set/mute", "app/#", "", "$SYS/x"] {
            let fault = decode(&arrival(topic), &topics).unwrap_err();
            assert!(fault.reason.contains("response topic") && fault.respond_to.is_none());
        }
    }

    #[test]
    fn hostile_payloads_are_refused_by_name() {
        let nested = "{\"prompt\":".to_owned() + &"[".repeat(60_000);
        let long = format!(r#"{{"prompt": "hi", "transaction": "{}"}}"#, "7".repeat(300));
        let pictures = format!(r#"{{"image": [{}]}}"#, ["\"AA==\""; 9].join(","));
        for (path, payload, part) in [
            ("ask", b"\xff\xfe".to_vec(), "not UTF-8"),
            ("ask", b"{\"prompt\": \"\xff\"}".to_vec(), "expected"),
            ("ask", Vec::new(), "empty"),
            ("ask", b"{\"prompt\": 3}".to_vec(), "expected"),
            ("ask", b"{\"prompt\": \"a\", \"extra\": 1}".to_vec(), "unknown field"),
            ("ask", b"{\"task\": \"dance\", \"prompt\": \"a\"}".to_vec(), "unknown variant"),
            ("ask", b"{\"audio\": \"?\"}".to_vec(), "base64"),
            ("ask", nested.into_bytes(), "expected"),
            ("ask", vec![b'a'; MAX_TEXT + 1], "more than"),
            ("ask", vec![b'a'; MAX_PROMPT + 1], "longer than"),
            ("ask", long.into_bytes(), "transaction is longer"),
            ("ask", pictures.into_bytes(), "pictures"),
            ("ask/audio", vec![0; MAX_MEDIA + 1], "media have more"),
            ("ask/image", Vec::new(), "file is empty"),
            ("set/mute", b"perhaps".to_vec(), "ON or OFF"),
        ] {
            let fault = read(path, &payload).expect_err("refused").to_string();
            assert!(fault.contains(path) && fault.contains(part), "{fault}");
        }
    }

    #[test]
    fn a_refusal_knows_whom_to_tell() {
        let fault = read("ask", r#"{"transaction": "7"}"#).unwrap_err();
        assert_eq!(
            (fault.transaction.as_deref(), fault.reason.as_str()),
            (Some("7"), "the prompt is empty")
        );
        for payload in [
            r#"{"prompt": "lock the front door", "transaction": "z3", "x": 1}"#,
            r#"{"call": {"name": "set_volume", "arguments": null}, "transaction": "z3"}"#,
            r#"{"prompt": 3, "transaction": "z3"}"#,
            "\u{feff}{\"prompt\": 3, \"transaction\": \"z3\"}",
        ] {
            let fault = read("ask", payload).unwrap_err();
            assert_eq!(fault.transaction.as_deref(), Some("z3"), "{fault}");
            assert!(
                fault.reason.contains("expected") && !fault.reason.contains("struct"),
                "{fault}"
            );
        }
    }

    #[test]
    fn a_byte_order_mark_is_no_text() {
        let ask =
            |prompt: &str| Ok(Some(Inbound::Ask(Ask { prompt: prompt.into(), ..Ask::default() })));
        assert_eq!(read("ask", "\u{feff}{\"prompt\": \"hi\"}"), ask("hi"));
        assert_eq!(read("ask", "\u{feff}lights off"), ask("lights off"));
        assert_eq!(read("set/mute", "\u{feff}ON"), Ok(Some(Inbound::Set(Setting::Mute(true)))));
    }
}
