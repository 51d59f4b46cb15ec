//! Features of sounds and pictures into the rows of the token embeddings that placeholders hold (spec 0, step 5).

use crate::error::{Error, Result};
use crate::features::Features;

/// Replaces the row of the i-th placeholder in `ids` by the i-th row of `features`, all media counted through in order.
///
/// # Errors
/// [`Error::Request`] when the placeholders are not as many as the feature rows, or a width differs.
pub fn merge(
    embeds: &mut Features,
    ids: &[u32],
    placeholder: u32,
    features: &[Features],
) -> Result<()> {
    if ids.len() != embeds.rows {
        return Err(Error::Request(format!(
            "{} embeddings were given for {} tokens",
            embeds.rows,
            ids.len()
        )));
    }
    let places = ids.iter().filter(|id| **id == placeholder).count();
    let rows: usize = features.iter().map(|medium| medium.rows).sum();
    if places != rows {
        return Err(Error::Request(format!(
            "the prompt has {places} placeholders of id {placeholder}, but its media have {rows} feature rows"
        )));
    }
    let width = embeds.width;
    if let Some(other) = features.iter().find(|medium| medium.width != width) {
        return Err(Error::Request(format!(
            "features are {} wide, embeddings {width}",
            other.width
        )));
    }
    let rows = features.iter().flat_map(|medium| medium.data.chunks_exact(width));
    let places = embeds.data.chunks_exact_mut(width).zip(ids).filter(|(_, id)| **id == placeholder);
    for ((place, _), row) in places.zip(rows) {
        place.copy_from_slice(row);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn features(rows: usize, first: f32) -> Features {
        Features::new(2, (0..rows * 2).map(|i| first + i as f32).collect())
    }

    #[test]
    fn rows_go_to_placeholders_by_rank() {
        let mut embeds = Features::new(2, vec![0.0; 12]);
        let media = [features(2, 10.0), features(1, 20.0)];
        merge(&mut embeds, &[1, 9, 9, 1, 9, 1], 9, &media).unwrap();
        let expected = [0.0, 0.0, 10.0, 11.0, 12.0, 13.0, 0.0, 0.0, 20.0, 21.0, 0.0, 0.0];
        assert_eq!(embeds.data, expected);
    }

    #[test]
    fn counts_and_widths_must_match() {
        let mut embeds = Features::new(2, vec![0.0; 6]);
        let fault = merge(&mut embeds, &[9, 1, 1], 9, &[features(2, 0.0)]).unwrap_err();
        assert!(fault.to_string().contains("1 placeholders of id 9"), "{fault}");
        let narrow = Features { rows: 1, width: 1, data: vec![0.0] };
        assert!(matches!(merge(&mut embeds, &[9, 1, 1], 9, &[narrow]), Err(Error::Request(_))));
        assert!(merge(&mut embeds, &[9, 1], 9, &[]).is_err());
    }
}
