//! Features of sounds and pictures into the rows of the token embeddings that placeholders hold (spec 0, step 5).

use tch::{Kind, Tensor};

use crate::error::{Error, Result};
use crate::features::Features;

/// Token embeddings `[n, hidden]` with the row of the i-th placeholder in `ids` replaced by the i-th row of `features`, all
/// media counted through in order.
///
/// # Errors
/// [`Error::Request`] when the placeholders are not as many as the feature rows, or a width differs.
pub fn merge(
    embeds: &Tensor,
    ids: &[u32],
    placeholder: u32,
    features: &[Features],
) -> Result<Tensor> {
    let (n, hidden) = embeds.size2()?;
    if ids.len() as i64 != n {
        return Err(Error::Request(format!("{n} embeddings were given for {} tokens", ids.len())));
    }
    let places: Vec<i64> =
        (0..n).zip(ids).filter(|(_, id)| **id == placeholder).map(|(place, _)| place).collect();
    let rows: usize = features.iter().map(|medium| medium.rows).sum();
    if places.len() != rows {
        return Err(Error::Request(format!(
            "the prompt has {} placeholders of id {placeholder}, but its media have {rows} feature rows",
            places.len()
        )));
    }
    if let Some(other) = features.iter().find(|medium| medium.width as i64 != hidden) {
        return Err(Error::Request(format!(
            "features are {} wide, embeddings {hidden}",
            other.width
        )));
    }
    let data: Vec<f32> = features.iter().flat_map(|medium| &medium.data).copied().collect();
    let rows = Tensor::f_from_slice(&data)?
        .f_reshape([rows as i64, hidden])?
        .f_to_device(embeds.device())?
        .f_to_kind(embeds.kind())?;
    let places =
        Tensor::f_from_slice(&places)?.f_to_device(embeds.device())?.f_to_kind(Kind::Int64)?;
    Ok(embeds.f_index_copy(0, &places, &rows)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn features(rows: usize, first: f32) -> Features {
        Features { rows, width: 2, data: (0..rows * 2).map(|i| first + i as f32).collect() }
    }

    #[test]
    fn rows_go_to_placeholders_by_rank() {
        let embeds = Tensor::zeros([6, 2], (Kind::Float, tch::Device::Cpu));
        let merged =
            merge(&embeds, &[1, 9, 9, 1, 9, 1], 9, &[features(2, 10.0), features(1, 20.0)])
                .unwrap();
        let rows: Vec<Vec<f32>> = Vec::try_from(merged).unwrap();
        assert_eq!(
            rows,
            [[0.0, 0.0], [10.0, 11.0], [12.0, 13.0], [0.0, 0.0], [20.0, 21.0], [0.0, 0.0]]
                .map(|row| row.to_vec())
        );
        assert_eq!(embeds.count_nonzero_dim_intlist([0, 1]).int64_value(&[]), 0);
    }

    #[test]
    fn counts_and_widths_must_match() {
        let embeds = Tensor::zeros([3, 2], (Kind::Float, tch::Device::Cpu));
        let fault = merge(&embeds, &[9, 1, 1], 9, &[features(2, 0.0)]).unwrap_err();
        assert!(fault.to_string().contains("1 placeholders of id 9"), "{fault}");
        let narrow = Features { rows: 1, width: 1, data: vec![0.0] };
        assert!(matches!(merge(&embeds, &[9, 1, 1], 9, &[narrow]), Err(Error::Request(_))));
        assert!(merge(&embeds, &[9, 1], 9, &[]).is_err());
    }
}
