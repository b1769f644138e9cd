module mayfly

go 1.26.0
