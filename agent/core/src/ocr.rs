//! Reads the text in a picture.

use std::time::Duration;

use crate::event::{Frame, Origin};
use crate::model_thread::{ModelError, ModelHandle};
use crate::prompting;

/// The text in a picture; none where there is none.
///
/// # Errors
/// When the model does not answer.
pub async fn read_text(
    model: &ModelHandle,
    origin: Origin,
    frame: Frame,
    max_new_tokens: usize,
    deadline: Duration,
) -> Result<Option<String>, ModelError> {
    let request = prompting::read_image(frame.image, max_new_tokens);
    let generation = model.generate(origin, request, deadline).await?;
    Ok(prompting::text_read(&generation.text).map(str::to_owned))
}
