//! What to do when the buffer stays nearly full.

use nyquist_core::config::Duration;
use serde::Deserialize;

use crate::tail_sampling::rules::compile::Problems;

/// The section `stress`: while the buffer is overloaded, new traces are decided at once and without
/// being buffered, by their id alone.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(default)]
pub struct StressConfig {
    /// How full the buffer has to be, in percent (90: where early decisions begin).
    pub activation_percentage: u32,
    /// Below this it is over (75).
    pub deactivation_percentage: u32,
    /// How long the buffer has to stay nearly full before it begins, and how long it lasts at least (10s).
    pub minimum_duration: Duration,
    /// How many traces are kept meanwhile, in percent (1).
    pub sampling_percentage: f64,
}

impl Default for StressConfig {
    fn default() -> Self {
        Self {
            activation_percentage: 90,
            deactivation_percentage: 75,
            minimum_duration: Duration::from_secs(10),
            sampling_percentage: 1.0,
        }
    }
}

impl StressConfig {
    pub(super) fn check(&self, problems: &mut Problems) {
        if !(1..=100).contains(&self.activation_percentage) {
            problems.add(&["stress", "activation_percentage"], "it has to be from 1 to 100");
        }
        if self.deactivation_percentage >= self.activation_percentage {
            let message = format!(
                "{} is not below activation_percentage ({}): what is between them keeps stress from going on and off",
                self.deactivation_percentage, self.activation_percentage
            );
            problems.add(&["stress", "deactivation_percentage"], message);
        }
        if !(0.0..=100.0).contains(&self.sampling_percentage) {
            problems.add(&["stress", "sampling_percentage"], "it has to be from 0 to 100");
        }
    }
}
