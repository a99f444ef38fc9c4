//! What the transcode tests share: clips as samples, a run of the worker, outside judges.

pub(crate) mod media;
pub(crate) mod oracle;
pub(crate) mod run;
