//! Results of calls as MCP has them ↔ as tools have them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use rmcp::model::{CallToolResult, ContentBlock, ResourceContents};

use crate::plain::short;
use crate::tool::{ErrorKind, Media, ToolError, ToolOutcome};

/// What is longer is cut, bytes.
const MAX_TEXT: usize = 64 * 1024;
/// Media that do not fit are left out, bytes.
const MAX_MEDIA: usize = 4 << 20;
/// A longer error is cut, characters.
const MAX_ERROR: usize = 500;

/// A result of a server.
pub(super) fn outcome(result: CallToolResult) -> Result<ToolOutcome, ToolError> {
    let (mut texts, mut media) = (Vec::new(), Vec::new());
    for block in result.content {
        match block {
            ContentBlock::Text(text) => texts.push(text.text),
            ContentBlock::Image(image) => media.extend(medium(&image.mime_type, &image.data)),
            ContentBlock::Audio(audio) => media.extend(medium(&audio.mime_type, &audio.data)),
            ContentBlock::Resource(resource) => match resource.resource {
                ResourceContents::TextResourceContents { text, .. } => texts.push(text),
                ResourceContents::BlobResourceContents { mime_type, blob, .. } => {
                    let mime = mime_type.unwrap_or_else(|| "application/octet-stream".into());
                    media.extend(medium(&mime, &blob));
                }
                _ => {}
            },
            ContentBlock::ResourceLink(link) => texts.push(link.uri),
            _ => {}
        }
    }
    let text = cut(texts.join("\n"), MAX_TEXT);
    if result.is_error == Some(true) {
        return Err(ToolError {
            kind: ErrorKind::Failed,
            for_model: short(&text, MAX_ERROR),
            for_operator: text,
        });
    }
    let mut room = MAX_MEDIA;
    media.retain(|medium: &Media| match room.checked_sub(medium.bytes.len()) {
        Some(left) => {
            room = left;
            true
        }
        None => false,
    });
    let data = result.structured_content.filter(|data| data.to_string().len() <= MAX_TEXT);
    // A server that gives data gives them as text too, for clients that know no better.
    let text = Some(text).filter(|text| !text.is_empty() && data.is_none());
    Ok(ToolOutcome { text, data, media })
}

fn medium(mime: &str, base64: &str) -> Option<Media> {
    let bytes = BASE64.decode(base64).ok()?;
    Some(Media { mime: short(mime, 100), bytes })
}

fn cut(mut text: String, limit: usize) -> String {
    if text.len() > limit {
        text.truncate(text.floor_char_boundary(limit));
    }
    text
}

/// A result for a client.
pub(super) fn result(done: Result<ToolOutcome, ToolError>) -> CallToolResult {
    let done = match done {
        Ok(done) => done,
        Err(error) => return CallToolResult::error(vec![ContentBlock::text(error.for_model)]),
    };
    let mut content: Vec<ContentBlock> = done.text.into_iter().map(ContentBlock::text).collect();
    if let Some(data) = &done.data {
        content.push(ContentBlock::text(data.to_string()));
    }
    for Media { mime, bytes } in done.media {
        let data = BASE64.encode(bytes);
        if mime.starts_with("image/") {
            content.push(ContentBlock::image(data, mime));
        } else if mime.starts_with("audio/") {
            content.push(ContentBlock::audio(data, mime));
        } else {
            content.push(ContentBlock::text(format!("a file of type {mime}")));
        }
    }
    if content.is_empty() {
        content.push(ContentBlock::text("done"));
    }
    let mut result = CallToolResult::success(content);
    // What is structured has to be an object there.
    result.structured_content = done.data.filter(serde_json::Value::is_object);
    result
}
