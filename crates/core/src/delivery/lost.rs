//! What is lost of a request that was taken all the same.

use crate::batch::DropReason;

/// Items that are lost of a request, by reason.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lost(Vec<(DropReason, usize)>);

impl Lost {
    /// So many items for one reason.
    #[must_use]
    pub fn of(reason: DropReason, items: usize) -> Self {
        let mut lost = Self::default();
        lost.add(reason, items);
        lost
    }

    /// How many, whatever the reason.
    #[must_use]
    pub fn items(&self) -> usize {
        self.0.iter().fold(0, |sum, (_, items)| sum.saturating_add(*items))
    }

    /// Is nothing lost?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Each reason once.
    pub fn iter(&self) -> impl Iterator<Item = (DropReason, usize)> + '_ {
        self.0.iter().copied()
    }

    /// Adds what is lost for `reason`.
    pub fn add(&mut self, reason: DropReason, items: usize) {
        if items == 0 {
            return;
        }
        match self.0.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, sum)) => *sum = sum.saturating_add(items),
            None => self.0.push((reason, items)),
        }
    }

    /// Adds what is lost elsewhere.
    pub fn merge(&mut self, other: Self) {
        other.0.into_iter().for_each(|(reason, items)| self.add(reason, items));
    }

    /// Takes out what falls on a part of so many items: all that is left, if it is no more than these. Nobody says which
    /// items a peer did not take, so the first parts bear it.
    #[must_use]
    pub(super) fn take_share(&mut self, mut items: usize) -> Self {
        let mut share = Self::default();
        for (reason, left) in &mut self.0 {
            let taken = items.min(*left);
            share.add(*reason, taken);
            *left -= taken;
            items -= taken;
        }
        self.0.retain(|(_, left)| *left > 0);
        share
    }
}

impl FromIterator<(DropReason, usize)> for Lost {
    fn from_iter<I: IntoIterator<Item = (DropReason, usize)>>(parts: I) -> Self {
        let mut lost = Self::default();
        parts.into_iter().for_each(|(reason, items)| lost.add(reason, items));
        lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up_and_are_no_larger_than_their_parts() {
        let reasons = [(DropReason::PartlyRejected, 5), (DropReason::Rejected, 0), (DropReason::Untranslatable, 4)];
        let mut lost: Lost = reasons.into_iter().collect();
        let shares = [3, 3, 10].map(|items| lost.take_share(items));
        assert_eq!(shares[0], Lost::of(DropReason::PartlyRejected, 3));
        assert_eq!(
            shares[1].iter().collect::<Vec<_>>(),
            [(DropReason::PartlyRejected, 2), (DropReason::Untranslatable, 1)]
        );
        assert_eq!(shares[2], Lost::of(DropReason::Untranslatable, 3));
        assert!(lost.is_empty());
    }
}
