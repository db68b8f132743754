//! The whole server on a real ring, over real TCP.

mod apicurio;
mod basics;
mod child;
mod compress;
mod confined;
mod guard;
mod heavy;
mod links;
mod models;
mod nodes;
mod order;
mod process;
mod proxy;
mod publish;
mod pusher;
mod reflect;
mod rush;
mod schemas;
mod slow;
mod stream;
mod survival;
mod tls;
mod webhooks;
mod zenith;
mod zilla;
mod zilliqa;
