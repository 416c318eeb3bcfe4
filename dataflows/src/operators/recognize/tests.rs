//! Tests of the step: against a slow reference, by hand, under a flood, of what is refused, and of rules that change.

mod bounds;
mod by_hand;
mod equal;
mod histories;
mod reference;
mod refused;
mod rules;
