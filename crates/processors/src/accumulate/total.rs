//! Sums of numbers that may be integers or doubles.

use nyquist_core::wire::Number;

/// A sum: an integer while everything added was one and it fits, a double from then on.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Total {
    int: i64,
    double: f64,
    is_double: bool,
}

impl Total {
    pub(crate) fn add(&mut self, number: Number) {
        match number {
            Number::Int(number) if !self.is_double => match self.int.checked_add(number) {
                Some(sum) => self.int = sum,
                None => self.add_double(number as f64),
            },
            Number::Int(number) => self.add_double(number as f64),
            // One NaN or infinity would spoil the sum for ever.
            Number::Double(number) if number.is_finite() => self.add_double(number),
            Number::Double(_) => {}
        }
    }

    pub(crate) fn subtract(&mut self, number: Number) {
        match number {
            Number::Int(number) => self.add(number.checked_neg().map_or(Number::Double(-(number as f64)), Number::Int)),
            Number::Double(number) => self.add(Number::Double(-number)),
        }
    }

    fn add_double(&mut self, number: f64) {
        if !self.is_double {
            self.is_double = true;
            self.double = self.int as f64;
        }
        self.double += number;
    }

    pub(crate) fn value(self) -> Number {
        if self.is_double { Number::Double(self.double) } else { Number::Int(self.int) }
    }

    /// The sum over `count`.
    pub(crate) fn mean(self, count: usize) -> Number {
        let sum = if self.is_double { self.double } else { self.int as f64 };
        Number::Double(sum / count.max(1) as f64)
    }
}

/// Is it neither NaN nor infinite?
pub(crate) fn is_finite(number: Number) -> bool {
    match number {
        Number::Int(_) => true,
        Number::Double(number) => number.is_finite(),
    }
}

/// `number` as a double.
pub(crate) fn as_double(number: Number) -> f64 {
    match number {
        Number::Int(number) => number as f64,
        Number::Double(number) => number,
    }
}

/// By how much a monotonic sum has grown from `last` to `now`; `None` if it has fallen.
pub(crate) fn growth(now: Number, last: Number) -> Option<Number> {
    match (now, last) {
        (Number::Int(now), Number::Int(last)) if now >= last => now.checked_sub(last).map(Number::Int),
        (Number::Int(_), Number::Int(_)) => None,
        (now, last) => {
            let (now, last) = (as_double(now), as_double(last));
            (now >= last).then_some(Number::Double(now - last))
        }
    }
}

/// `number`, or nothing where a monotonic sum is negative or not a number.
pub(crate) fn not_negative(number: Number) -> Number {
    match number {
        Number::Int(number) => Number::Int(number.max(0)),
        Number::Double(number) if number >= 0.0 && number.is_finite() => Number::Double(number),
        Number::Double(_) => Number::Double(0.0),
    }
}
