//! The command line driven as engines and people drive it: real processes, real namespaces.

mod bad_input;
mod cgroups;
mod harness;
mod life_cycle;
mod logs;
mod oci;
mod on_this_machine;
mod posture;
mod stubs;
