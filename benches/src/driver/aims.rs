//! What the systrap platform aims at: most times the native time that an operation or a program may take on an otherwise idle
//! machine of two processors. Printed beside the results; nothing fails that misses them.

/// By the names of the tables.
const AIMS: &[(&str, f64)] = &[
    ("getpid", 1.0),
    ("clock_gettime", 1.0),
    ("getppid", 1.0),
    // The call that stands for all that enter the sentry.
    ("getpgrp", 3.0),
    ("getpgrp_unpatched", 20.0),
    ("getpgrp_busy", 40.0),
    ("read_1b_dev_zero", 4.0),
    ("pread_4k", 4.0),
    ("stat", 1.5),
    ("open_close", 2.5),
    ("create_unlink", 1.5),
    ("pipe_one_thread", 4.0),
    ("pipe_round_trip", 3.0),
    ("futex_round_trip", 3.0),
    ("signal_to_self", 5.0),
    ("mmap_touch_munmap", 4.0),
    ("page_fault_sequential", 1.3),
    ("thread_create_join", 2.5),
    ("fork_wait", 4.0),
    ("fork_exec_wait", 3.0),
    ("read_sequential_4k", 3.0),
    ("write_sequential_4k", 2.0),
    ("make_j2", 1.3),
    ("find", 2.0),
    ("tar", 2.0),
    ("python_start", 1.4),
    // 0.4 and 0.7 of the native rate.
    ("redis_get_1", 2.5),
    ("redis_get_16", 1.43),
];

/// The aim of an operation, if it has one.
pub fn of(operation: &str) -> Option<f64> {
    AIMS.iter().find(|(name, _)| *name == operation).map(|(_, aim)| *aim)
}
