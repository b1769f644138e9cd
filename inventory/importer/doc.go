// Package importer turns what other tools know of machines into [[server]] tables of fleet.toml: CSV, JSON, Ansible inventories (INI, YAML and
// what `ansible-inventory --list` prints) and Terraform state (the state file, and `terraform show -json`). Data in, data out; it does no I/O.
//
// Each format becomes records: where it stood, and flat fields of text. A mapping takes fields to the keys of [[server]]; what is not
// mapped is left behind. Nothing is guessed: a machine without a name or a key that fleet.toml does not have is an error with its place, and
// what comes out is checked with the fleet that it joins.
//
// Read importer.go, then csv.go, json.go, ansible.go, ansible_ini.go, terraform.go; merge.go is the way into a fleet.toml.
package importer
