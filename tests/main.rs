//! The one integration-test binary. (A stand-in until the job's branch brings the real one.)

mod gateway;
