//! The two resizings of spec 3.2, to the bit where the reference rounds.

/// Bits after the point of a weight, as in Pillow.
const FRACTION: u32 = 22;
/// Sharpness of the cubic, as in torch.
const CUBIC: f32 = -0.75;

/// Pillow's BILINEAR of 8-bit RGB: a triangle that widens when shrinking, rounded to 8 bits after each pass, rows first
/// (step 6).
pub(super) fn bilinear(
    rgb: &[u8],
    (width, height): (usize, usize),
    (to_width, to_height): (usize, usize),
) -> Vec<u8> {
    let mut wide = Vec::with_capacity(to_width * height * 3);
    if to_width == width {
        wide.extend_from_slice(rgb);
    } else {
        let taps = triangles(width, to_width);
        for row in rgb.chunks_exact(width * 3) {
            for tap in &taps {
                let covered = &row[tap.first * 3..(tap.first + tap.weights.len()) * 3];
                let mut sums = [1i64 << (FRACTION - 1); 3];
                for (pixel, weight) in covered.chunks_exact(3).zip(&tap.weights) {
                    for (sum, value) in sums.iter_mut().zip(pixel) {
                        *sum += i64::from(*value) * weight;
                    }
                }
                wide.extend(sums.map(rounded));
            }
        }
    }
    if to_height == height {
        return wide;
    }
    let stride = to_width * 3;
    let mut out = Vec::with_capacity(stride * to_height);
    let mut sums = vec![0i64; stride];
    for tap in triangles(height, to_height) {
        sums.fill(1 << (FRACTION - 1));
        for (row, weight) in wide.chunks_exact(stride).skip(tap.first).zip(&tap.weights) {
            for (sum, value) in sums.iter_mut().zip(row) {
                *sum += i64::from(*value) * weight;
            }
        }
        out.extend(sums.iter().copied().map(rounded));
    }
    out
}

fn rounded(sum: i64) -> u8 {
    (sum >> FRACTION).clamp(0, 255) as u8
}

/// The pixels that make one pixel of the result.
struct Tap {
    first: usize,
    weights: Vec<i64>,
}

fn triangles(size: usize, to: usize) -> Vec<Tap> {
    let scale = size as f64 / to as f64;
    let support = scale.max(1.0);
    (0..to)
        .map(|x| {
            let centre = (x as f64 + 0.5) * scale;
            // Truncated towards zero, as C does.
            let first = ((centre - support + 0.5) as i64).max(0) as usize;
            let end = ((centre + support + 0.5) as usize).min(size);
            let weight = |at: usize| (1.0 - ((at as f64 - centre + 0.5) / support).abs()).max(0.0);
            let sum: f64 = (first..end).map(weight).sum();
            let fixed = |at| (weight(at) / sum * f64::from(1 << FRACTION) + 0.5) as i64;
            Tap { first, weights: (first..end).map(fixed).collect() }
        })
        .collect()
}

/// torch's bicubic without antialiasing, corners not aligned, not clamped (step 10): one channel, `[height, width]` →
/// `[to, to]`.
pub(super) fn bicubic(plane: &[f32], (width, height): (usize, usize), to: usize) -> Vec<f32> {
    let (columns, rows) = (cubics(width, to), cubics(height, to));
    let mut out = Vec::with_capacity(to * to);
    for (row_at, row_weights) in rows {
        let lines = row_at.map(|row| &plane[row * width..(row + 1) * width]);
        for (at, weights) in &columns {
            let along = lines.map(|line| dot(at.map(|column| line[column]), *weights));
            out.push(dot(along, row_weights));
        }
    }
    out
}

fn dot(values: [f32; 4], weights: [f32; 4]) -> f32 {
    values.iter().zip(weights).map(|(value, weight)| value * weight).sum()
}

/// For each place of the result, the four places it is made of, repeated at the border, and their weights.
fn cubics(size: usize, to: usize) -> Vec<([usize; 4], [f32; 4])> {
    let scale = size as f32 / to as f32;
    (0..to)
        .map(|x| {
            let source = scale * (x as f32 + 0.5) - 0.5;
            let (floor, t) = (source.floor(), source - source.floor());
            let at =
                [-1, 0, 1, 2].map(|step| (floor as i64 + step).clamp(0, size as i64 - 1) as usize);
            (at, [outer(t + 1.0), inner(t), inner(1.0 - t), outer(2.0 - t)])
        })
        .collect()
}

/// The cubic within one pixel of its centre.
fn inner(x: f32) -> f32 {
    ((CUBIC + 2.0) * x - (CUBIC + 3.0)) * x * x + 1.0
}

/// The cubic from one to two pixels away.
fn outer(x: f32) -> f32 {
    ((CUBIC * x - 5.0 * CUBIC) * x + 8.0 * CUBIC) * x - 4.0 * CUBIC
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flat_pictures_stay_flat() {
        for (size, to) in [((7, 5), (31, 3)), ((448, 100), (20, 448)), ((9, 9), (9, 2))] {
            let out = bilinear(&vec![201; size.0 * size.1 * 3], size, to);
            assert_eq!(out, vec![201; to.0 * to.1 * 3]);
        }
        let out = bicubic(&[0.25; 21], (7, 3), 5);
        assert!(out.iter().all(|value| (value - 0.25).abs() < 1e-6));
    }

    #[test]
    fn an_edge_is_interpolated_as_by_pillow() {
        let grey = |values: &[u8]| values.iter().flat_map(|&value| [value; 3]).collect::<Vec<_>>();
        assert_eq!(bilinear(&grey(&[0, 100]), (2, 1), (4, 1)), grey(&[0, 25, 75, 100]));
        assert_eq!(bilinear(&grey(&[0, 0, 100, 200]), (4, 1), (2, 1)), grey(&[14, 129]));
        assert_eq!(bilinear(&grey(&[0, 0, 100, 200]), (1, 4), (1, 2)), grey(&[14, 129]));
    }

    #[test]
    fn bicubic_overshoots_at_an_edge_as_by_torch() {
        let row = [0.0, 0.0, 0.0, 1.0, 1.0, 1.0];
        let plane: Vec<f32> = row.repeat(6);
        let out = bicubic(&plane, (6, 6), 4);
        let expected = [0.0, -0.105_468_75, 1.105_468_8, 1.0];
        for (got, expected) in out.iter().zip(expected) {
            assert!((got - expected).abs() < 1e-5, "{out:?}");
        }
    }
}
