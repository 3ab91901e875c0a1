//! Pipelines run by the built binary against real servers. One executable, so that all its tests share one broker and one
//! database; what depends on a quiet machine is in `timing` instead.

mod admin;
mod admin_commands;
mod broker_faults;
mod cited;
mod ends;
mod exactly_once;
mod exactly_once_denied;
mod exactly_once_file;
mod exactly_once_network;
mod examples;
mod file_channel;
mod file_channel_faults;
mod groups;
mod guests;
mod kills;
mod many_stages;
mod million;
mod mysql;
mod plugin_bench;
mod poison;
mod process_faults;
mod progress_faults;
mod readme;
mod reload;
mod reload_kafka;
mod reload_refused;
mod reload_watch;
mod replay;
mod roads;
mod servers;
mod swap;
mod tail_faults;
mod unreachable;
