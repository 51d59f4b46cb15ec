//! Prompts, exactly as the bundled model was trained on them.
//!
//! Text that the camera read is data. It enters a prompt only inside the JSON of a tool result,
//! never as a turn.

use outpost_runtime::{Audio, Image, Part, Request, Role, ToolCall, ToolSpec, Turn};
use serde_json::Value;

/// Transcription.
pub const TRANSCRIBE: &str = "Transcribe the audio clip into text.";
/// Reading a picture.
pub const READ_IMAGE: &str = "Read the text in the image.";
/// Answer of the bundled model to [`READ_IMAGE`] without text.
pub const NO_TEXT: &str = "NO TEXT";

/// Answer of the bundled model to anything that is not a command.
pub const REFUSAL: &str = "Sorry, I can't help with that.";

/// What the agent says in place of an acknowledgement without a call, and of a call that is too doubtful to be made.
pub const NOT_UNDERSTOOD: &str = "I didn't catch that.";
/// What it says in place of an acknowledgement after calls of which none succeeded.
pub const NOT_DONE: &str = "That did not work.";

/// A user turn: pictures, sound, text, in this order.
pub fn user(
    images: impl IntoIterator<Item = Image>,
    audio: Option<Audio>,
    text: Option<&str>,
) -> Turn {
    let images = images.into_iter().map(Part::Image);
    let audio = audio.map(Part::Audio);
    let text = text.filter(|text| !text.is_empty()).map(|text| Part::Text(text.to_owned()));
    Turn { role: Role::User, parts: images.chain(audio).chain(text).collect() }
}

/// A spoken or written command with tools. The runtime writes the system turn.
pub fn command(turn: Turn, tools: &[ToolSpec], max_new_tokens: usize) -> Request {
    Request { tools: tools.to_vec(), max_new_tokens, ..Request::new(vec![turn]) }
}

/// Transcription.
pub fn transcribe(audio: Audio, max_new_tokens: usize) -> Request {
    Request { max_new_tokens, ..Request::new(vec![user(None, Some(audio), Some(TRANSCRIBE))]) }
}

/// Reading a picture.
pub fn read_image(image: Image, max_new_tokens: usize) -> Request {
    Request { max_new_tokens, ..Request::new(vec![user(Some(image), None, Some(READ_IMAGE))]) }
}

/// A yes-or-no question about a picture.
pub fn yes_or_no(image: Image, question: &str, max_new_tokens: usize) -> Request {
    let question = format!("{} Answer yes or no.", question.trim());
    Request { max_new_tokens, ..Request::new(vec![user(Some(image), None, Some(&question))]) }
}

/// Appends the model's calls and their results.
pub fn respond(
    request: &mut Request,
    calls: Vec<ToolCall>,
    results: impl IntoIterator<Item = Value>,
) {
    request.turns.push(Turn { role: Role::Assistant, parts: vec![Part::Calls(calls)] });
    for result in results {
        request
            .turns
            .push(Turn::text(Role::ToolResponse, outpost_runtime::prompt::spaced_json(&result)));
    }
}

/// Extracts the text from an answer to [`read_image`]; `None` if there is none.
pub fn text_read(answer: &str) -> Option<&str> {
    let text = answer.trim();
    (!text.is_empty() && text != NO_TEXT).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_come_before_text_and_nothing_is_empty() {
        let image = Image { width: 1, height: 1, rgb: vec![0; 3].into() };
        let audio = Audio { samples: vec![0.0].into(), rate: 16_000 };
        let turn = user(Some(image.clone()), Some(audio.clone()), Some("what"));
        assert_eq!(turn.parts, [Part::Image(image), Part::Audio(audio), Part::Text("what".into())]);
        assert_eq!(user(None, None, Some("")).parts, []);
    }

    #[test]
    fn results_follow_their_calls() {
        let mut request = Request::new(vec![user(None, None, Some("next song"))]);
        let call = ToolCall { name: "play_media".into(), arguments: serde_json::Map::new() };
        respond(
            &mut request,
            vec![call.clone()],
            [serde_json::json!({"ok": true, "text": "EXIT 4"})],
        );
        assert_eq!(request.turns[1].parts, [Part::Calls(vec![call])]);
        assert_eq!(
            request.turns[2],
            Turn::text(Role::ToolResponse, r#"{"ok": true, "text": "EXIT 4"}"#)
        );
    }

    #[test]
    fn no_text_is_none() {
        assert_eq!(text_read("NO TEXT"), None);
        assert_eq!(text_read(" EXIT 4\n"), Some("EXIT 4"));
        assert_eq!(text_read(""), None);
    }
}
