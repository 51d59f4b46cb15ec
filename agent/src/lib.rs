//! The program `outpost`: command line, build-spawn-drain, doctor, service, and where tools and board meet the broker.

pub mod app;
pub mod cli;
pub mod doctor;
pub mod firmware;
pub mod heap;
pub mod model_dir;
pub mod score;
pub mod service;
pub mod soak;
pub mod toolbox;
