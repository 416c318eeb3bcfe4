//! levada: a real-time decision engine. (A stand-in until the job's branch brings the real one.)

pub mod cli {
    pub mod gateway;
}
pub mod gateway;
