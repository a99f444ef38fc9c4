//! Takes from this process what a decoder of a stranger's bytes has no need of.
//!
//! Enters: the ladder: whether it needs a graphics card
//! Leaves: a process that can open no socket, start no process, signal, trace and slow down no other one, and open no
//!         file but programs' code and data and the devices that encode
//! Never:  fails: a kernel without the means is told of in the log, and the rest is done
//! Time:   none
//! Spec:   docs/resilience.md

mod calls;
mod card;
mod files;
mod limits;
mod trial;

use landlock::RulesetStatus;

pub(super) use self::card::needs_card;
pub(super) use self::trial::try_confinement;
use super::log;

/// What holds from the first moment on.
pub(super) fn begin() {
    limits::begin();
}

/// Confines this process. To be called while it has one thread: later ones inherit it.
pub(super) fn confine(needs_card: bool) {
    limits::limit();
    match files::confine(needs_card) {
        Ok(RulesetStatus::NotEnforced) => log("this kernel does not confine what files are opened"),
        Ok(_) => {}
        Err(reason) => log(&format!("what files are opened is not confined: {reason}")),
    }
    limits::drop_privileges();
    if needs_card {
        log("memory that is shared with a graphics card is not limited");
    }
    if let Err(reason) = calls::refuse(needs_card) {
        log(&format!("calls of the system are not confined: {reason}"));
    }
}
