# A GiB by curl from outside, over IPv4; a few MiB over IPv6; the checksums are right.
serve_data 1024
want=$(make_data 1024 | sha256sum)
eq "$(inside sh -c "curl -sS http://$HERE:8000/ | sha256sum")" "$want"
want=$(make_data 16 | sha256sum)
eq "$(inside sh -c "curl -sS 'http://[$HERE6]:8000/' 2> /dev/null | head -c 16M | sha256sum")" "$want"
eq "$(inside sh -c "curl -sS http://$HERE:8001/ > /dev/null 2>&1; echo \$?")" 7
