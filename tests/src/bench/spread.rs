//! Numbers of one thing, measured several times.

use serde::Serialize;

/// The middle of several measurements, and how far they lie apart.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// Half of them are below.
    pub median: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
    /// How many there are.
    pub count: usize,
}

impl Spread {
    /// Of at least one number.
    #[must_use]
    pub fn of(mut numbers: Vec<f64>) -> Option<Self> {
        numbers.sort_by(f64::total_cmp);
        let (min, max) = (*numbers.first()?, *numbers.last()?);
        Some(Self { median: quantile(&numbers, 0.5), min, max, count: numbers.len() })
    }

    /// The same with another unit.
    #[must_use]
    pub fn scaled(self, by: f64) -> Self {
        Self { median: self.median * by, min: self.min * by, max: self.max * by, ..self }
    }
}

/// The value below which a share of sorted numbers lies, by linear interpolation between neighbours.
///
/// # Panics
/// There are no numbers.
#[must_use]
pub fn quantile(sorted: &[f64], share: f64) -> f64 {
    let place = share * (sorted.len() - 1) as f64;
    let below = place.floor() as usize;
    let above = (below + 1).min(sorted.len() - 1);
    sorted[below] + (sorted[above] - sorted[below]) * (place - below as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_count_lies_between_its_neighbours() {
        let spread = Spread::of(vec![4.0, 1.0, 3.0, 2.0]).expect("four numbers");
        assert_eq!(spread, Spread { median: 2.5, min: 1.0, max: 4.0, count: 4 });
        assert_eq!(Spread::of(Vec::new()), None);
    }

    #[test]
    fn quantiles_interpolate() {
        let numbers: Vec<f64> = (0..=100).map(f64::from).collect();
        assert!((quantile(&numbers, 0.99) - 99.0).abs() < 1e-9);
        assert!((quantile(&[1.0, 2.0], 0.99) - 1.99).abs() < 1e-9);
        assert!((quantile(&[7.0], 0.99) - 7.0).abs() < 1e-9);
    }
}
