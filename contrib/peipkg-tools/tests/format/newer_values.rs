//! Values newer than PSD-009 v0.22.
