// Package files fills the control plane's objects from a directory of YAML and keeps them up to date.
package files
