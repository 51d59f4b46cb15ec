//! All integration tests in one binary, since each one links libtorch.

#[cfg(test)]
mod agent;
#[cfg(test)]
mod ahead;
#[cfg(test)]
mod bad_input;
#[cfg(test)]
mod bench;
#[cfg(test)]
mod calls;
#[cfg(test)]
mod camera;
#[cfg(test)]
mod capabilities;
#[cfg(test)]
mod chaos;
#[cfg(test)]
mod confidence;
#[cfg(test)]
mod demo;
#[cfg(test)]
mod end_to_end;
#[cfg(test)]
mod examples;
#[cfg(test)]
mod firmware;
#[cfg(test)]
mod fleet;
#[cfg(test)]
mod foreign;
#[cfg(test)]
mod gguf;
#[cfg(test)]
mod gpu;
#[cfg(test)]
mod home_assistant;
#[cfg(test)]
mod import;
#[cfg(test)]
mod injection;
#[cfg(test)]
mod inputs;
#[cfg(test)]
mod live;
#[cfg(test)]
mod microphone;
#[cfg(test)]
mod parity;
#[cfg(test)]
mod program;
#[cfg(test)]
mod readme;
#[cfg(test)]
mod reference;
#[cfg(test)]
mod service;
#[cfg(test)]
mod smollm2;
#[cfg(test)]
mod sweep;
#[cfg(test)]
mod tokenizer;
#[cfg(test)]
mod tools;
#[cfg(test)]
mod unit;
