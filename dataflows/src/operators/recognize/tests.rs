//! Tests of the step: against a slow reference, by hand, under a flood, and of what is refused.

mod bounds;
mod by_hand;
mod equal;
mod histories;
mod reference;
mod refused;
