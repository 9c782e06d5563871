//! A node end to end: the real `tandem-control` and `tandemctl`, before a data plane that keeps books.

mod control;
mod pair;
mod site;
mod tandemctl;
