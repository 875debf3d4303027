#!/bin/sh
exec /serve "$(cat /root/apache-tomcat-7.0.42-v2/webapps/sample.war)"
