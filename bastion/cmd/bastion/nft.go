package main

import (
	"context"
	"io"
	"net/netip"
	"time"

	"mayfly/bastion"
	"mayfly/internal/command"
)

func nftVerb() command.Verb {
	return command.Verb{
		Name:    "nft",
		Args:    "--config FILE [--table NAME] [--port P]",
		Summary: "print the address list for the host's firewall",
		Help: `It prints what the policy lists (ssh.allow and ssh.proxies) as a whole nftables ruleset: one table with two sets, and a rule that drops a
SYN to the bastion's port from anybody else. The bastion's own filter does the same; this one is also there while no bastion has started
yet. Loading it replaces the table in one step. It reads no host key:

  bastion nft --config bastion.toml | nft -f -

` + configHelp,
		Run: nft,
	}
}

func nft(_ context.Context, c *command.Call) error {
	fs := c.Flags()
	table := fs.String("table", bastion.NFTTable, "`name` of the table")
	port := fs.Uint("port", 0, "the `port` to guard, if it is not that of listen")
	config, err := parseConfig(c, fs)
	if err != nil {
		return err
	}
	if *port > 65535 {
		return command.Usagef("--port %d: 1 to 65535", *port)
	}
	report, err := bastion.CheckList(config, time.Now())
	if err != nil {
		return err
	}
	listen := config.Listen
	if *port > 0 {
		listen = netip.AddrPortFrom(listen.Addr(), uint16(*port))
	}
	text, err := bastion.NFT(report, listen, *table)
	if err != nil {
		return command.Usagef("%v", err)
	}
	_, err = io.WriteString(c.Stdout, text)
	return err
}
