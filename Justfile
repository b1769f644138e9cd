# A recipe for each daily command. Nothing needs just: each line can be typed as it is.

# the main job, from image to report
demo *flags:
    go run ./testenv demo {{flags}}

# bring a fleet up and leave it running
up:
    go run ./testenv up

# what of it runs
status:
    go run ./testenv status

# end it and take everything away
down:
    go run ./testenv down

# every check and test
test *flags:
    go run ./testenv test {{flags}}

# tests that need no root and no machine, quickly
quick:
    go test -short ./...

# every fuzz target of outside input that a bastion or an engineer's tools read, for so long each
fuzz time="20s":
    go run ./testenv fuzz --time {{time}}

# sessions opened and dropped for minutes: the bastion ends as it began
soak minutes="10":
    go run ./testenv soak --minutes {{minutes}}

# our data plane against stock wireguard-go
bench *flags:
    go run ./testenv bench tunnel {{flags}}

# the programs, into bin/
build:
    CGO_ENABLED=0 go build -trimpath -o bin/ ./fleetctl ./bastion/cmd/bastion ./tunnel/cmd/tunnel ./testenv

# bastion-agent with cards, into bin/: gcc, pkg-config, libpcsclite-dev
agent:
    CGO_ENABLED=1 go build -trimpath -tags pcsc -o bin/ ./bastion/cmd/bastion-agent

# what the compiler does not see
check:
    go vet ./... && go tool staticcheck ./...
