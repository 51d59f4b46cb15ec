//! Reads text in pictures.

use std::time::Duration;

use crate::event::{Frame, Origin};
use crate::model_thread::{ModelError, ModelHandle};
use crate::prompting;

/// Reads the text in a picture; `None` if there is none.
///
/// # Errors
/// If the model fails.
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
