//! The cells a metric is made of: counter, gauge, histogram, and families of counters with one or two bounded labels.
//!
//! Every cell has one writer (its shard). A torn sum over cells is possible and harmless: Prometheus reads rates.

use std::{
    marker::PhantomData,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// Counts up, never down.
#[derive(Default, Debug)]
pub struct Counter(AtomicU64);

impl Counter {
    #[inline]
    pub fn inc(&self) {
        self.add(1);
    }

    #[inline]
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// Takes over a total that is counted elsewhere (the ring's own counters).
    #[inline]
    pub fn mirror(&self, total: u64) {
        self.0.store(total, Relaxed);
    }

    #[inline]
    pub fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A level: goes up and down.
#[derive(Default, Debug)]
pub struct Gauge(AtomicU64);

impl Gauge {
    #[inline]
    pub fn set(&self, level: u64) {
        self.0.store(level, Relaxed);
    }

    #[inline]
    pub fn inc(&self) {
        self.set(self.value() + 1);
    }

    #[inline]
    pub fn dec(&self) {
        debug_assert!(
            self.value() > 0,
            "a gauge of things present goes below none"
        );
        self.set(self.value().saturating_sub(1));
    }

    #[inline]
    pub fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Durations in buckets of doubling width: 1 ms, 2 ms, 4 ms ... 2^20 ms (17.5 minutes), and above.
///
/// Two compares and three stores per observation; 21 buckets serve a 2 ms reply and a 9 minute one alike.
#[derive(Default, Debug)]
pub struct Histogram {
    buckets: [Counter; HISTOGRAM_BUCKETS],
    sum_micros: Counter,
}

/// Bucket `i` holds what took at most 2^i ms; the last one holds the rest.
pub const HISTOGRAM_BUCKETS: usize = 22;

impl Histogram {
    #[inline]
    pub fn observe(&self, took: Duration) {
        let micros = took.as_micros() as u64;
        self.buckets[bucket_of(micros)].inc();
        self.sum_micros.add(micros);
    }

    pub fn count(&self) -> u64 {
        self.buckets.iter().map(Counter::value).sum()
    }
}

#[inline]
fn bucket_of(micros: u64) -> usize {
    let millis_up = micros.div_ceil(1000);
    let bits = (64 - millis_up.saturating_sub(1).leading_zeros()) as usize;
    bits.min(HISTOGRAM_BUCKETS - 1)
}

/// A label with a bounded set of values.
pub trait Dimension {
    /// What `at` takes: an own enum, or an index where another module owns the words.
    type Key: Copy;
    /// The label's name.
    const LABEL: &'static str;
    /// How many values there can be; each costs 8 bytes per shard and metric.
    const MAX: usize;
    fn index(key: Self::Key) -> usize;
    /// The label's value; None: the place is not in use and is not shown.
    fn word(index: usize, names: &Names) -> Option<&str>;
}

/// The words of dimensions that other modules own, known to whoever exposes the metrics.
#[derive(Default, Clone, Debug)]
pub struct Names {
    pub findings: Vec<&'static str>,
    pub actions: Vec<&'static str>,
    pub violations: Vec<&'static str>,
    pub upstreams: Vec<String>,
    pub lists: Vec<String>,
}

/// Cells with one label.
#[derive(Debug)]
pub struct Vector<D, C = Counter> {
    cells: Box<[C]>,
    dimension: PhantomData<fn() -> D>,
}

impl<D: Dimension, C: Default> Default for Vector<D, C> {
    fn default() -> Self {
        Self {
            cells: (0..D::MAX).map(|_| C::default()).collect(),
            dimension: PhantomData,
        }
    }
}

impl<D: Dimension, C> Vector<D, C> {
    /// The cell of this label value. A place beyond the dimension's limit is our error, not the peer's.
    #[inline]
    pub fn at(&self, key: D::Key) -> &C {
        &self.cells[D::index(key)]
    }
}

/// Counters with two labels. Cells that never counted are not shown.
#[derive(Debug)]
pub struct Matrix<A, B> {
    cells: Box<[Counter]>,
    dimensions: PhantomData<fn() -> (A, B)>,
}

impl<A: Dimension, B: Dimension> Default for Matrix<A, B> {
    fn default() -> Self {
        Self {
            cells: (0..A::MAX * B::MAX).map(|_| Counter::default()).collect(),
            dimensions: PhantomData,
        }
    }
}

impl<A: Dimension, B: Dimension> Matrix<A, B> {
    #[inline]
    pub fn at(&self, a: A::Key, b: B::Key) -> &Counter {
        let (row, column) = (A::index(a), B::index(b));
        assert!(column < B::MAX, "a label value is inside its dimension");
        &self.cells[row * B::MAX + column]
    }
}

/// One cell as read at a scrape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reading {
    Number(u64),
    /// Counts per bucket (not yet cumulative) and the sum in microseconds.
    Buckets([u64; HISTOGRAM_BUCKETS], u64),
}

impl Reading {
    pub fn merge(&mut self, other: &Reading) {
        match (self, other) {
            (Reading::Number(a), Reading::Number(b)) => *a = a.wrapping_add(*b),
            (Reading::Buckets(a, sum_a), Reading::Buckets(b, sum_b)) => {
                a.iter_mut().zip(b).for_each(|(a, b)| *a += b);
                *sum_a += sum_b;
            }
            _ => unreachable!("cells of one metric are of one kind"),
        }
    }

    pub fn is_zero(&self) -> bool {
        match self {
            Reading::Number(n) => *n == 0,
            Reading::Buckets(buckets, _) => buckets.iter().all(|n| *n == 0),
        }
    }
}

/// What the exposition sees of a metric: its kind, its label names, and its cells with their label values.
pub trait Series {
    fn kind(&self) -> &'static str;
    fn labels(&self) -> Vec<&'static str>;
    /// Calls `each` with the label values (in the order of `labels`) and the reading of every cell in use.
    fn read(&self, names: &Names, each: &mut dyn FnMut(&[&str], Reading));
}

impl Series for Counter {
    fn kind(&self) -> &'static str {
        "counter"
    }
    fn labels(&self) -> Vec<&'static str> {
        Vec::new()
    }
    fn read(&self, _: &Names, each: &mut dyn FnMut(&[&str], Reading)) {
        each(&[], Reading::Number(self.value()));
    }
}

impl Series for Gauge {
    fn kind(&self) -> &'static str {
        "gauge"
    }
    fn labels(&self) -> Vec<&'static str> {
        Vec::new()
    }
    fn read(&self, _: &Names, each: &mut dyn FnMut(&[&str], Reading)) {
        each(&[], Reading::Number(self.value()));
    }
}

impl Series for Histogram {
    fn kind(&self) -> &'static str {
        "histogram"
    }
    fn labels(&self) -> Vec<&'static str> {
        Vec::new()
    }
    fn read(&self, _: &Names, each: &mut dyn FnMut(&[&str], Reading)) {
        let buckets = std::array::from_fn(|i| self.buckets[i].value());
        each(&[], Reading::Buckets(buckets, self.sum_micros.value()));
    }
}

impl<D: Dimension, C: Series + Default> Series for Vector<D, C> {
    fn kind(&self) -> &'static str {
        C::default().kind()
    }
    fn labels(&self) -> Vec<&'static str> {
        vec![D::LABEL]
    }
    fn read(&self, names: &Names, each: &mut dyn FnMut(&[&str], Reading)) {
        for (i, cell) in self.cells.iter().enumerate() {
            if let Some(word) = D::word(i, names) {
                cell.read(names, &mut |_, reading| each(&[word], reading));
            }
        }
    }
}

impl<A: Dimension, B: Dimension> Series for Matrix<A, B> {
    fn kind(&self) -> &'static str {
        "counter"
    }
    fn labels(&self) -> Vec<&'static str> {
        vec![A::LABEL, B::LABEL]
    }
    fn read(&self, names: &Names, each: &mut dyn FnMut(&[&str], Reading)) {
        for (i, cell) in self.cells.iter().enumerate() {
            let reading = Reading::Number(cell.value());
            let words = (A::word(i / B::MAX, names), B::word(i % B::MAX, names));
            if let ((Some(a), Some(b)), false) = (words, reading.is_zero()) {
                each(&[a, b], reading);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_lands_in_the_first_bucket_that_holds_it() {
        for (micros, bucket) in [
            (0, 0),
            (1, 0),
            (1_000, 0),
            (1_001, 1),
            (2_000, 1),
            (2_001, 2),
            (4_000, 2),
            (1_048_576_000, 20),
            (1_048_576_001, 21),
            (u64::MAX, 21),
        ] {
            assert_eq!(bucket_of(micros), bucket, "{micros} us");
        }
    }

    #[test]
    fn a_histogram_counts_and_sums() {
        let h = Histogram::default();
        h.observe(Duration::from_millis(3));
        h.observe(Duration::from_secs(2));
        assert_eq!(h.count(), 2);
        h.read(&Names::default(), &mut |_, reading| {
            let Reading::Buckets(buckets, sum) = reading else {
                panic!("buckets expected")
            };
            assert_eq!((buckets[2], buckets[11], sum), (1, 1, 2_003_000));
        });
    }
}
