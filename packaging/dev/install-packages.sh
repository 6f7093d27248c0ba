# ./dev install-packages
install_packages
step "all $(wanted_packages | wc -l) packages are installed"
