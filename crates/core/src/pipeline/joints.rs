//! How connectors join pipelines, and in which order that lets them be built and drained.

use super::graph::{Pipeline, Plan};
use crate::batch::Signal;
use crate::component::ConnectorConfig;
use crate::config::ComponentId;

/// A connector of a plan.
pub struct PlannedConnector {
    /// What it takes, and what it makes of it.
    pub pairs: &'static [(Signal, Signal)],
    /// Its ready configuration.
    pub config: Box<dyn ConnectorConfig>,
}

/// One use of a connector: from pipelines of one signal to pipelines of another, or of the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Joint {
    pub(super) id: ComponentId,
    pub(super) from: Signal,
    pub(super) to: Signal,
}

impl Joint {
    pub(super) fn is_fed_by(&self, pipeline: &Pipeline) -> bool {
        pipeline.signal == self.from && pipeline.exporters.contains(&self.id)
    }

    pub(super) fn feeds(&self, pipeline: &Pipeline) -> bool {
        pipeline.signal == self.to && pipeline.receivers.contains(&self.id)
    }
}

/// All joints that have pipelines at both ends, in a fixed order.
pub(super) fn joints(plan: &Plan) -> Vec<Joint> {
    let mut found = Vec::new();
    for (id, connector) in &plan.connectors {
        for &(from, to) in connector.pairs {
            let joint = Joint { id: id.clone(), from, to };
            let is_fed = plan.pipelines.iter().any(|pipeline| joint.is_fed_by(pipeline));
            if is_fed && plan.pipelines.iter().any(|pipeline| joint.feeds(pipeline)) {
                found.push(joint);
            }
        }
    }
    found.sort_by(|one, other| (&one.id, one.from, one.to).cmp(&(&other.id, other.from, other.to)));
    found
}

/// For each pipeline, over how many joints data comes to it at the most.
///
/// # Errors
/// A joint on a loop.
pub(super) fn levels<'a>(pipelines: &[Pipeline], joints: &'a [Joint]) -> Result<Vec<usize>, &'a Joint> {
    let mut levels = vec![0; pipelines.len()];
    // Without a loop no way is longer than the number of pipelines.
    for _ in 0..=pipelines.len() {
        let mut changed = None;
        for joint in joints {
            let fed = level_of(joint, pipelines, &levels) + 1;
            for (pipeline, level) in pipelines.iter().zip(&mut levels) {
                if joint.feeds(pipeline) && *level < fed {
                    *level = fed;
                    changed = Some(joint);
                }
            }
        }
        match changed {
            None => return Ok(levels),
            Some(joint) if levels.iter().any(|&level| level > pipelines.len()) => return Err(joint),
            Some(_) => {}
        }
    }
    joints.first().map_or(Ok(levels), Err)
}

/// The highest level of a pipeline that leads to `joint`.
pub(super) fn level_of(joint: &Joint, pipelines: &[Pipeline], levels: &[usize]) -> usize {
    let feeding = pipelines.iter().zip(levels).filter(|(pipeline, _)| joint.is_fed_by(pipeline));
    feeding.map(|(_, &level)| level).max().unwrap_or_default()
}
