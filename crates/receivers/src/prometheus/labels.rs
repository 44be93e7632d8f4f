//! Sets of labels.

use std::borrow::Cow;

/// The label that holds a metric's name.
pub(crate) const NAME: &str = "__name__";

/// Labels in the order of their names; none is there twice, none is empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Labels<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'a> Labels<'a> {
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (&**name, &**value))
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// The value of `name`; empty if it is not there.
    pub(crate) fn get(&self, name: &str) -> &str {
        self.find(name).ok().and_then(|at| self.0.get(at)).map_or("", |(_, value)| value)
    }

    /// Sets `name` to `value`; an empty value removes it.
    pub(crate) fn set(&mut self, name: impl Into<Cow<'a, str>>, value: impl Into<Cow<'a, str>>) {
        let (name, value) = (name.into(), value.into());
        match self.find(&name) {
            Ok(at) if value.is_empty() => drop(self.0.remove(at)),
            Ok(at) => {
                if let Some(label) = self.0.get_mut(at) {
                    label.1 = value;
                }
            }
            Err(_) if value.is_empty() => {}
            Err(at) => self.0.insert(at, (name, value)),
        }
    }

    /// Takes `name` out.
    pub(crate) fn remove(&mut self, name: &str) -> Option<Cow<'a, str>> {
        self.find(name).ok().map(|at| self.0.remove(at).1)
    }

    pub(crate) fn retain(&mut self, mut keep: impl FnMut(&str) -> bool) {
        self.0.retain(|(name, _)| keep(name));
    }

    /// Adds a label without looking; [`Labels::settle`] must follow.
    pub(crate) fn push(&mut self, name: Cow<'a, str>, value: Cow<'a, str>) {
        self.0.push((name, value));
    }

    /// Restores the order after [`Labels::push`]; the name that is there twice, if one is.
    pub(crate) fn settle(&mut self) -> Result<(), String> {
        if !self.0.is_sorted_by(|(left, _), (right, _)| left < right) {
            self.0.sort_by(|(left, _), (right, _)| left.cmp(right));
            let twice = self.0.array_windows().find(|[(left, _), (right, _)]| left == right);
            if let Some([(name, _), _]) = twice {
                return Err(format!("label {name:?} is there twice"));
            }
        }
        self.0.retain(|(_, value)| !value.is_empty());
        Ok(())
    }

    pub(crate) fn into_owned(self) -> Labels<'static> {
        let own = |text: Cow<'a, str>| Cow::Owned(text.into_owned());
        Labels(self.0.into_iter().map(|(name, value)| (own(name), own(value))).collect())
    }

    fn find(&self, name: &str) -> Result<usize, usize> {
        self.0.binary_search_by(|(own, _)| (**own).cmp(name))
    }
}

impl<'a, N: Into<Cow<'a, str>>, V: Into<Cow<'a, str>>> FromIterator<(N, V)> for Labels<'a> {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(pairs: I) -> Self {
        let mut labels = Self::default();
        pairs.into_iter().for_each(|(name, value)| labels.set(name, value));
        labels
    }
}
