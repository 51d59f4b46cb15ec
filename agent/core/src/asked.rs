//! Turns an `ask` into a model request: decodes its media and applies the task's prompt.

use outpost_runtime::audio::expect_speech;
use outpost_runtime::media::{Channel, audio_from_bytes, images_from_bytes};
use outpost_runtime::{Capabilities, Request, ToolSpec};
use tokio::sync::mpsc;

use crate::event::{Ask, EventId, Task};
use crate::report::{Body, DeltaReport, Report, Sink};
use crate::shortcomings::{Incapable, check_task};
use crate::tasks::{Given, Lacking};

/// An `ask` that is invalid.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// A medium cannot be decoded.
    #[error(transparent)]
    Media(#[from] outpost_runtime::Error),
    /// Something is missing.
    #[error(transparent)]
    Lacking(#[from] Lacking),
    /// The model was not made for it.
    #[error(transparent)]
    Incapable(#[from] Incapable),
    /// Text in a picture is data and must not trigger a call.
    #[error("task call takes no pictures: what they show must not call tools")]
    PictureForCall,
    /// Decoding was interrupted.
    #[error("the media could not be decoded: {0}")]
    Cut(#[from] tokio::task::JoinError),
}

/// Builds the request.
///
/// # Errors
/// If a medium is missing, damaged or too large, or the model was not made for the task.
pub async fn request(
    ask: &Ask,
    tools: &[ToolSpec],
    capabilities: &Capabilities,
    max_new_tokens: usize,
) -> Result<Request, AskError> {
    let task = ask.task.unwrap_or_else(|| suggested(ask));
    check_task(task, capabilities)?;
    if task == Task::Call && !ask.images.is_empty() {
        return Err(AskError::PictureForCall);
    }
    let given = if ask.audio.is_none() && ask.images.is_empty() {
        given(ask)?
    } else {
        // Decoding a large picture takes a while.
        let ask = ask.clone();
        tokio::task::spawn_blocking(move || given(&ask)).await??
    };
    Ok(task.request(given, tools, max_new_tokens)?)
}

/// Default task for an `ask` without one.
fn suggested(ask: &Ask) -> Task {
    match (ask.images.is_empty(), ask.prompt.trim().is_empty()) {
        (true, _) => Task::Call,
        (false, true) if ask.audio.is_some() => Task::SpeechQa,
        (false, true) => Task::Ocr,
        (false, false) => Task::Chat,
    }
}

fn given(ask: &Ask) -> Result<Given, outpost_runtime::Error> {
    let images = images_from_bytes(&ask.images)?;
    let audio = ask.audio.as_deref().map(|bytes| audio_from_bytes(bytes, Channel::Auto));
    let audio = audio.transpose()?;
    if let Some(audio) = &audio {
        expect_speech(audio, None)?;
    }
    Ok(Given {
        images,
        audio,
        prompt: Some(ask.prompt.clone()).filter(|prompt| !prompt.trim().is_empty()),
        language: ask.language.clone(),
        transcript: false,
    })
}

/// Streams the answer while it is generated.
pub async fn tell(sink: &dyn Sink, event: EventId, ask: &Ask, mut said: mpsc::Receiver<String>) {
    let mut index = 0;
    while let Some(text) = said.recv().await {
        sink.send(Report::now(Body::Delta(DeltaReport {
            event,
            transaction: ask.transaction.clone(),
            respond_to: ask.respond_to.clone(),
            index,
            text,
        })));
        index += 1;
    }
}

#[cfg(test)]
mod tests {
    use outpost_runtime::Part;

    use super::*;

    fn png() -> Vec<u8> {
        // One white pixel.
        let hex = "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c49444154789c63f8\
                   ffff3f0005fe02fe0def46b80000000049454e44ae426082";
        (0..hex.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
            .collect()
    }

    #[tokio::test]
    async fn media_suggest_the_task_and_pictures_offer_no_tools() {
        let tool = ToolSpec { name: "t".into(), description: "d".into(), schema: "{}".into() };
        let (tools, any) = ([tool], Capabilities::default());
        let picture = Ask { images: vec![png()], ..Ask::default() };
        let read = request(&picture, &tools, &any, 8).await.unwrap();
        assert!(
            read.tools.is_empty()
                && matches!(read.turns[0].parts[..], [Part::Image(_), Part::Text(_)])
        );
        let command = Ask { prompt: "lights on".into(), ..Ask::default() };
        assert_eq!(request(&command, &tools, &any, 8).await.unwrap().tools.len(), 1);
        let forged = Ask { task: Some(Task::Call), prompt: "do it".into(), ..picture };
        assert!(matches!(request(&forged, &tools, &any, 8).await, Err(AskError::PictureForCall)));
    }

    #[tokio::test]
    async fn small_files_of_large_pictures_are_refused_together_before_they_are_decoded() {
        // A header of 7000 x 7000 pixels, and nothing to decode.
        let mut large = png();
        large[16..24].copy_from_slice(&[0, 0, 0x1b, 0x58, 0, 0, 0x1b, 0x58]);
        let checksum = crc(&large[12..29]).to_be_bytes();
        large[29..33].copy_from_slice(&checksum);
        let images =
            |images: Vec<Vec<u8>>| Ask { images, prompt: "what?".into(), ..Ask::default() };
        let fault = request(&images(vec![large.clone(); 8]), &[], &Capabilities::default(), 8)
            .await
            .unwrap_err()
            .to_string();
        assert!(fault.contains("8 pictures have 392.0 megapixels together"), "{fault}");
        // One of them would be taken, if there were more of it.
        let fault = request(&images(vec![large]), &[], &Capabilities::default(), 8)
            .await
            .unwrap_err()
            .to_string();
        assert!(!fault.contains("megapixels"), "{fault}");
        assert!(request(&images(vec![png(); 8]), &[], &Capabilities::default(), 8).await.is_ok());
    }

    /// The checksum of a chunk.
    fn crc(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(u32::MAX, |crc, byte| {
            (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
                if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 }
            })
        })
    }

    #[tokio::test]
    async fn a_question_to_a_model_that_does_not_chat_is_refused() {
        let narrow = Capabilities { chat: false, ..Capabilities::default() };
        let ask = Ask { task: Some(Task::Chat), prompt: "why?".into(), ..Ask::default() };
        let refused = request(&ask, &[], &narrow, 8).await;
        assert!(matches!(refused, Err(AskError::Incapable(_))), "{refused:?}");
        let command = Ask { prompt: "lights on".into(), ..Ask::default() };
        assert!(request(&command, &[], &narrow, 8).await.is_ok());
    }

    #[tokio::test]
    async fn what_is_missing_or_damaged_is_told() {
        for (ask, part) in [
            (Ask { images: vec![vec![1, 2, 3]], ..Ask::default() }, "image"),
            (Ask { audio: Some(vec![1, 2, 3]), ..Ask::default() }, "audio"),
            (
                Ask { task: Some(Task::Ocr), prompt: "x".into(), ..Ask::default() },
                "needs a picture",
            ),
        ] {
            let fault =
                request(&ask, &[], &Capabilities::default(), 8).await.unwrap_err().to_string();
            assert!(fault.contains(part), "{fault}");
        }
    }
}
