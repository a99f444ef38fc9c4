//! Where broadcasts come in: one folder per protocol that publishers speak.
//!
//! Enters: connections from publishers, who may be anybody
//! Leaves: messages of media, in order, each publisher on a channel of its own
//! Never:  looks inside media; decides who may publish (that is `app`)
//! Time:   source timestamps as the publisher wrote them
//! Spec:   [RTMP]

pub mod rtmp;
