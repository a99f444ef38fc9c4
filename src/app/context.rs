//! What all broadcasts share.
//!
//! Enters: what the server opened at its start
//! Leaves: the same, to every task
//! Never:  changes
//! Time:   none
//! Spec:   docs/architecture.md

use std::sync::Arc;

use crate::app::registry::Registry;
use crate::config::Config;
use crate::store::Store;
use crate::time::WallTime;
use crate::transcode::Absence;
use crate::transcode::ladder::Machine;
use crate::transcode::template::Pipeline;

/// What all broadcasts share.
#[derive(Debug)]
pub(super) struct Context {
    /// Every setting.
    pub(super) config: Config,
    /// What is made of broadcasts.
    pub(super) pipeline: Pipeline,
    /// When this process began, by the wall clock: what an earlier one published was before that.
    pub(super) started: WallTime,
    /// What broadcasts show while their publishers send nothing.
    pub(super) absence: Absence,
    /// Processors of this machine.
    pub(super) cores: u32,
    /// All streams.
    pub(super) registry: Arc<Registry>,
    /// Where everything is kept.
    pub(super) store: Store,
}

impl Context {
    /// What the ladder of one more broadcast may use: the machine is shared evenly among those that
    /// are published now, this one included.
    pub(super) fn machine_share(&self) -> Machine {
        let published = u32::try_from(self.registry.published()).unwrap_or(u32::MAX);
        Machine {
            cores: (self.cores / published.max(1)).max(1),
        }
    }
}

#[cfg(test)]
impl Context {
    /// What broadcasts of tests share, with a store in `folder`.
    pub(super) async fn made_up(folder: &std::path::Path) -> Self {
        let config = crate::store::Config {
            url: folder.display().to_string(),
            ..crate::store::Config::default()
        };
        let store = Store::open(config).await.expect("opens");
        Self {
            config: Config::default(),
            pipeline: Pipeline::Copy {
                name: String::new(),
                summary: String::new(),
            },
            started: crate::app::clock::wall_now(),
            absence: Absence::default(),
            cores: 1,
            registry: Arc::new(Registry::new(store.clone(), 1_935, Arc::default())),
            store,
        }
    }
}
