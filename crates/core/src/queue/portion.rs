//! Work in portions that each commit.

use std::time::Duration;

/// How many rows go in one portion: as many as take some hundred milliseconds on this database.
#[derive(Debug)]
pub struct Size {
    /// So many.
    pub rows: i64,
}

impl Size {
    /// A portion has no more, however quick the database is.
    pub const MOST: i64 = 1_000;
    const SHORT: Duration = Duration::from_millis(100);
    const LONG: Duration = Duration::from_millis(300);

    /// The last portion took so long.
    pub fn took(&mut self, time: Duration) {
        if time > Self::LONG {
            self.rows = (self.rows / 2).max(1);
        } else if time < Self::SHORT {
            self.rows = (self.rows * 2).min(Self::MOST);
        }
    }
}

impl Default for Size {
    fn default() -> Self {
        Self { rows: 50 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_portion_is_as_large_as_the_database_is_quick() {
        let mut size = Size::default();
        for _ in 0..10 {
            size.took(Duration::from_millis(5));
        }
        assert_eq!(size.rows, Size::MOST);
        size.took(Duration::from_millis(200));
        assert_eq!(size.rows, Size::MOST, "neither short nor long");
        for _ in 0..20 {
            size.took(Duration::from_secs(1));
        }
        assert_eq!(size.rows, 1, "something goes each time");
    }
}
