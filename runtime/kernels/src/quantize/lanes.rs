//! Vectors of f32, one lane a row of a panel.
//!
//! Nothing is added up across lanes, and no product is fused with a sum: rounding comes to the same codes on every CPU.
//! The lanes of NEON have not been compiled for 64-bit Arm yet.

#![cfg_attr(
    any(target_arch = "x86_64", target_arch = "aarch64"),
    expect(unsafe_code, reason = "functions for CPU features")
)]

use std::fmt::Debug;

pub(super) use self::vectors::*;

/// Added and taken away, it rounds a number below 2^22 to the nearest integer, ties to even, where there may be no instruction
/// for it.
pub(super) const ROUND: f32 = 12_582_912.0;

/// Some lanes. Those of a CPU feature are made only by functions that are compiled for it.
pub(super) trait Lanes: Copy + Debug {
    /// How many there are; it divides a panel.
    const COUNT: usize;

    fn all(value: f32) -> Self;
    /// The first of these values.
    fn load(values: &[f32]) -> Self;
    fn store(self, out: &mut [f32]);
    fn add(self, other: Self) -> Self;
    fn sub(self, other: Self) -> Self;
    fn mul(self, other: Self) -> Self;
    fn div(self, other: Self) -> Self;
    /// The lesser one, `other` where one isn't a number.
    fn min(self, other: Self) -> Self;
    /// As [`Lanes::min`], the larger one.
    fn max(self, other: Self) -> Self;
    /// `yes` in lanes where `self` is less than `other`, else `no`.
    fn less(self, other: Self, yes: Self, no: Self) -> Self;

    #[inline(always)]
    fn zero() -> Self {
        Self::all(0.0)
    }

    #[inline(always)]
    fn within(self, least: f32, largest: f32) -> Self {
        self.max(Self::all(least)).min(Self::all(largest))
    }

    /// Rounds numbers below 2^22 to integers, ties to even.
    #[inline(always)]
    fn round(self) -> Self {
        self.add(Self::all(ROUND)).sub(Self::all(ROUND))
    }

    #[inline(always)]
    fn abs(self) -> Self {
        self.max(Self::zero().sub(self))
    }

    /// `self / other`, and 0 where that is 0.
    #[inline(always)]
    fn over(self, other: Self) -> Self {
        Self::zero().less(other.abs(), self.div(other), Self::zero())
    }
}

/// Makes the lanes of a vector type from its intrinsics.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
macro_rules! lanes {
    ($name:ident, $count:literal, $all:ident, $load:ident, $store:ident,
     [$($op:ident = $intrinsic:ident),*], $less:expr) => {
        impl Lanes for $name {
            const COUNT: usize = $count;

            #[inline(always)]
            fn all(value: f32) -> Self {
                // SAFETY: only functions compiled for the CPU feature use this type.
                Self(unsafe { $all(value) })
            }

            #[inline(always)]
            fn load(values: &[f32]) -> Self {
                let values = &values[..$count];
                // SAFETY: as in `all`; so many numbers are there, and the load asks for no alignment.
                Self(unsafe { $load(values.as_ptr()) })
            }

            #[inline(always)]
            fn store(self, out: &mut [f32]) {
                let out = &mut out[..$count];
                // SAFETY: as in `all`; so many numbers have room, and the store asks for no alignment.
                unsafe { $store(out.as_mut_ptr(), self.0) }
            }

            $(
                #[inline(always)]
                fn $op(self, other: Self) -> Self {
                    // SAFETY: as in `all`.
                    Self(unsafe { $intrinsic(self.0, other.0) })
                }
            )*

            #[inline(always)]
            fn less(self, other: Self, yes: Self, no: Self) -> Self {
                // SAFETY: as in `all`.
                Self(unsafe { $less(self.0, other.0, yes.0, no.0) })
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
mod vectors {
    use std::arch::x86_64::*;

    use super::Lanes;

    /// SSE2, which every x86-64 has.
    #[derive(Debug, Clone, Copy)]
    pub(in super::super) struct Four(__m128);

    /// AVX2.
    #[derive(Debug, Clone, Copy)]
    pub(in super::super) struct Eight(__m256);

    /// AVX-512.
    #[derive(Debug, Clone, Copy)]
    pub(in super::super) struct Sixteen(__m512);

    lanes!(
        Four,
        4,
        _mm_set1_ps,
        _mm_loadu_ps,
        _mm_storeu_ps,
        [
            add = _mm_add_ps,
            sub = _mm_sub_ps,
            mul = _mm_mul_ps,
            div = _mm_div_ps,
            min = _mm_min_ps,
            max = _mm_max_ps
        ],
        |a, b, yes, no| {
            let less = _mm_cmplt_ps(a, b);
            _mm_or_ps(_mm_and_ps(less, yes), _mm_andnot_ps(less, no))
        }
    );

    lanes!(
        Eight,
        8,
        _mm256_set1_ps,
        _mm256_loadu_ps,
        _mm256_storeu_ps,
        [
            add = _mm256_add_ps,
            sub = _mm256_sub_ps,
            mul = _mm256_mul_ps,
            div = _mm256_div_ps,
            min = _mm256_min_ps,
            max = _mm256_max_ps
        ],
        |a, b, yes, no| _mm256_blendv_ps(no, yes, _mm256_cmp_ps::<_CMP_LT_OQ>(a, b))
    );

    lanes!(
        Sixteen,
        16,
        _mm512_set1_ps,
        _mm512_loadu_ps,
        _mm512_storeu_ps,
        [
            add = _mm512_add_ps,
            sub = _mm512_sub_ps,
            mul = _mm512_mul_ps,
            div = _mm512_div_ps,
            min = _mm512_min_ps,
            max = _mm512_max_ps
        ],
        |a, b, yes, no| _mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, b), no, yes)
    );
}

#[cfg(target_arch = "aarch64")]
mod vectors {
    use std::arch::aarch64::*;

    use super::Lanes;

    /// NEON, which every 64-bit Arm has.
    #[derive(Debug, Clone, Copy)]
    pub(in super::super) struct Four(float32x4_t);

    lanes!(
        Four,
        4,
        vdupq_n_f32,
        vld1q_f32,
        vst1q_f32,
        [
            add = vaddq_f32,
            sub = vsubq_f32,
            mul = vmulq_f32,
            div = vdivq_f32,
            min = vminq_f32,
            max = vmaxq_f32
        ],
        |a, b, yes, no| vbslq_f32(vcltq_f32(a, b), yes, no)
    );
}

/// One lane, where no vectors are known here.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
mod vectors {
    use super::Lanes;

    pub(in super::super) type Four = f32;

    impl Lanes for f32 {
        const COUNT: usize = 1;

        #[inline(always)]
        fn all(value: f32) -> Self {
            value
        }

        #[inline(always)]
        fn load(values: &[f32]) -> Self {
            values[0]
        }

        #[inline(always)]
        fn store(self, out: &mut [f32]) {
            out[0] = self;
        }

        #[inline(always)]
        fn add(self, other: Self) -> Self {
            self + other
        }

        #[inline(always)]
        fn sub(self, other: Self) -> Self {
            self - other
        }

        #[inline(always)]
        fn mul(self, other: Self) -> Self {
            self * other
        }

        #[inline(always)]
        fn div(self, other: Self) -> Self {
            self / other
        }

        #[inline(always)]
        fn min(self, other: Self) -> Self {
            if self < other { self } else { other }
        }

        #[inline(always)]
        fn max(self, other: Self) -> Self {
            if self > other { self } else { other }
        }

        #[inline(always)]
        fn less(self, other: Self, yes: Self, no: Self) -> Self {
            if self < other { yes } else { no }
        }
    }
}
