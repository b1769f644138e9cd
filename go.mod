module mayfly

go 1.26.0

require (
	filippo.io/age v1.3.2 // encrypts recordings of sessions
	github.com/bougou/go-ipmi v0.9.1 // IPMI 2.0, of the power driver of that name
	github.com/chromedp/cdproto v0.0.0-20260714215040-dc233986426f // what chromedp says to a browser; tests alone
	github.com/chromedp/chromedp v0.16.0 // drives Chromium in the tests of the status page
	github.com/fxamacker/cbor/v2 v2.9.6 // strict CBOR: what FIDO2 authenticators say
	github.com/go-piv/piv-go/v2 v2.6.0 // PIV cards through PC/SC, in bastion-agent alone (cgo)
	github.com/godbus/dbus/v5 v5.2.4 // desktop notifications of bastion-agent
	github.com/google/go-tpm v0.9.8 // TPM 2.0: a machine's keys and quotes, and the structures that the signer reads
	github.com/google/nftables v0.3.0 // NAT and host rules on servers, without a program
	github.com/hashicorp/go-hclog v1.6.3 // go-plugin's logger, which is told nothing
	github.com/hashicorp/go-plugin v1.8.0 // runs a site's own deciders as processes
	github.com/insomniacslk/dhcp v0.0.0-20260901064844-234b97448fae // DHCPv4 and DHCPv6, for the first address of a server
	github.com/klauspost/compress v1.20.3 // zstd: Debian packages that use it
	github.com/landlock-lsm/go-landlock v0.11.0 // the bastion's own sandbox: files and ports
	github.com/miekg/dns v1.1.73 // signs the test lab's own root zone
	github.com/pelletier/go-toml/v2 v2.4.3 // strict TOML with positions
	github.com/prometheus/client_golang v1.24.1 // metrics of the bastion
	github.com/prometheus/client_model v0.6.3 // what the text form is parsed to, in tests
	github.com/prometheus/common v0.70.1 // their text form, written and in tests parsed
	github.com/rogpeppe/go-internal v1.16.0 // testscript: tests of commands
	github.com/ulikunitz/xz v0.5.17 // xz: Debian packages
	github.com/vishvananda/netlink v1.3.1 // addresses, routes, rules, links
	github.com/vishvananda/netns v0.0.5 // network namespaces of the test lab
	go.yaml.in/yaml/v3 v3.0.4 // Ansible inventories, for fleetctl import
	golang.org/x/crypto v0.58.0 // SSH; v0.56.0 mended the last known flaws of its server
	golang.org/x/mod v0.41.0 // Merkle tree, tiles, proofs and signed notes of the audit log
	golang.org/x/net v0.60.0 // classic BPF; bounded listeners; HTML that tests read
	golang.org/x/sync v0.24.0 // errgroup
	golang.org/x/sys v0.49.0 // system calls
	golang.org/x/term v0.47.0 // reads a secret without echo
	golang.zx2c4.com/wireguard v0.0.0-20260522210424-ecfc5a8d5446 // the data plane
	google.golang.org/grpc v1.85.0 // between plugins and their host; go-plugin alone would take one with known flaws
	google.golang.org/protobuf v1.36.12 // the one message of plugins
	kernel.org/pub/linux/libs/security/libcap/psx v1.2.78 // system calls on all threads: privileges are a thread's
	modernc.org/sqlite v1.53.0 // the state store, without cgo
)

require (
	go.etcd.io/etcd/api/v3 v3.6.6 // its messages
	go.etcd.io/etcd/client/v3 v3.6.6 // the store that several controllers share
	go.uber.org/zap v1.27.0 // etcd's logger, which is told nothing
)

require (
	filippo.io/hpke v0.4.0 // indirect
	github.com/BurntSushi/toml v1.4.1-0.20240526193622-a339e1f7089c // indirect
	github.com/beorn7/perks v1.0.1 // indirect
	github.com/cespare/xxhash/v2 v2.3.0 // indirect
	github.com/chromedp/sysutil v1.1.0 // indirect
	github.com/coreos/go-semver v0.3.1 // indirect
	github.com/coreos/go-systemd/v22 v22.5.0 // indirect
	github.com/dustin/go-humanize v1.0.1 // indirect
	github.com/fatih/color v1.15.0 // indirect
	github.com/go-json-experiment/json v0.0.0-20260623181947-01eb4420fa68 // indirect
	github.com/go-ole/go-ole v1.3.0 // indirect
	github.com/gobwas/httphead v0.1.0 // indirect
	github.com/gobwas/pool v0.2.1 // indirect
	github.com/gobwas/ws v1.4.0 // indirect
	github.com/gogo/protobuf v1.3.2 // indirect
	github.com/golang/protobuf v1.5.4 // indirect
	github.com/google/go-cmp v0.7.0 // indirect
	github.com/google/uuid v1.6.0 // indirect
	github.com/grpc-ecosystem/grpc-gateway/v2 v2.26.3 // indirect
	github.com/hashicorp/yamux v0.1.2 // indirect
	github.com/kr/pretty v0.3.1 // indirect
	github.com/kr/text v0.2.0 // indirect
	github.com/mattn/go-colorable v0.1.13 // indirect
	github.com/mattn/go-isatty v0.0.20 // indirect
	github.com/mattn/go-runewidth v0.0.16 // indirect
	github.com/mdlayher/netlink v1.7.3-0.20250113171957-fbb4dce95f42 // indirect
	github.com/mdlayher/packet v1.2.0 // indirect
	github.com/mdlayher/socket v0.7.0 // indirect
	github.com/munnerz/goautoneg v0.0.0-20191010083416-a7dc8b61c822 // indirect
	github.com/ncruces/go-strftime v1.0.0 // indirect
	github.com/oklog/run v1.1.0 // indirect
	github.com/olekukonko/errors v1.1.0 // indirect
	github.com/olekukonko/ll v0.0.9 // indirect
	github.com/olekukonko/tablewriter v1.0.9 // indirect
	github.com/pierrec/lz4/v4 v4.1.14 // indirect
	github.com/prometheus/procfs v0.22.0 // indirect
	github.com/remyoudompheng/bigfft v0.0.0-20230129092748-24d4a6f8daec // indirect
	github.com/rivo/uniseg v0.2.0 // indirect
	github.com/u-root/uio v0.0.0-20240224005618-d2acac8f3701 // indirect
	github.com/x448/float16 v0.8.4 // indirect
	go.etcd.io/etcd/client/pkg/v3 v3.6.6 // indirect
	go.uber.org/multierr v1.11.0 // indirect
	golang.org/x/exp/typeparams v0.0.0-20231108232855-2478ac86f678 // indirect
	golang.org/x/text v0.43.0 // indirect
	golang.org/x/tools v0.51.0 // indirect
	golang.zx2c4.com/wintun v0.0.0-20230126152724-0fa3db229ce2 // indirect
	google.golang.org/genproto/googleapis/api v0.0.0-20260817212433-ac3dfec99bb1 // indirect
	google.golang.org/genproto/googleapis/rpc v0.0.0-20260817212433-ac3dfec99bb1 // indirect
	honnef.co/go/tools v0.8.2 // indirect
	modernc.org/libc v1.73.4 // indirect
	modernc.org/mathutil v1.7.1 // indirect
	modernc.org/memory v1.11.0 // indirect
)

tool honnef.co/go/tools/cmd/staticcheck
