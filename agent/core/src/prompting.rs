//! From what happened to what the model is asked: the exact forms in which the bundled model was trained.
//!
//! Text that the camera read is data. It enters a prompt only inside the JSON of a tool's result, never as a turn of its own.

use outpost_runtime::{Audio, Image, Part, Request, Role, ToolCall, ToolSpec, Turn};
use serde_json::Value;

/// Asks for the words of a sound.
pub const TRANSCRIBE: &str = "Transcribe the audio clip into text.";
/// Asks for the text in a picture.
pub const READ_IMAGE: &str = "Read the text in the image.";
/// What the bundled model answers to [`READ_IMAGE`] where there is no text.
pub const NO_TEXT: &str = "NO TEXT";

/// What the bundled model answers to what is none of its commands.
pub const REFUSAL: &str = "Sorry, I can't help with that.";

/// A user's turn: pictures first, then sound, then text, as far as there are any.
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

/// A command, spoken or written, with the tools that may be called. The runtime writes the system turn.
pub fn command(turn: Turn, tools: &[ToolSpec], max_new_tokens: usize) -> Request {
    Request { tools: tools.to_vec(), max_new_tokens, ..Request::new(vec![turn]) }
}

/// Asks for the words of a sound.
pub fn transcribe(audio: Audio, max_new_tokens: usize) -> Request {
    Request { max_new_tokens, ..Request::new(vec![user(None, Some(audio), Some(TRANSCRIBE))]) }
}

/// Asks for the text in a picture.
pub fn read_image(image: Image, max_new_tokens: usize) -> Request {
    Request { max_new_tokens, ..Request::new(vec![user(Some(image), None, Some(READ_IMAGE))]) }
}

/// Asks a question about a picture that yes or no answers.
pub fn yes_or_no(image: Image, question: &str, max_new_tokens: usize) -> Request {
    let question = format!("{} Answer yes or no.", question.trim());
    Request { max_new_tokens, ..Request::new(vec![user(Some(image), None, Some(&question))]) }
}

/// Adds the calls that the model made and what came of them, one response for each.
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

/// The text of a picture, out of the answer to [`read_image`]; none where there is no text.
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
