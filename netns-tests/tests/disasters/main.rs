//! What may befall a whole cluster: in one program, so that the tests, which mostly wait, do so at the same time.

mod all_killed;
mod space;
